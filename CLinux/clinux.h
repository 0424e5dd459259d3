// CLinux: the parts of Linux's C library that Swift's Glibc module leaves out.
#pragma once

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/memfd.h>
#include <malloc.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

// Declared by the C library only under _GNU_SOURCE, which a module's importer can't set.
int fallocate(int fd, int mode, off_t offset, off_t length);
int accept4(int socket, struct sockaddr *name, socklen_t *length, int flags);
int memfd_create(const char *name, unsigned flags);
int pipe2(int ends[2], int flags);
int posix_openpt(int flags);
int grantpt(int fd);
int unlockpt(int fd);
char *ptsname(int fd);
int posix_spawn_file_actions_addclosefrom_np(posix_spawn_file_actions_t *actions, int first);
const char *strerrordesc_np(int number);
const char *strerrorname_np(int number);
const char *sigabbrev_np(int number);

// What the program was started with, where CStart is linked in: 0 and NULL elsewhere and past the end.
extern int clinux_argument_total __attribute__((weak));
extern char **clinux_arguments __attribute__((weak));
static inline int clinux_argument_count(void) {
  return &clinux_argument_total ? clinux_argument_total : 0;
}
static inline const char *clinux_argument(int index) {
  return index < clinux_argument_count() ? clinux_arguments[index] : NULL;
}

// mallopt(3), which Swift's Glibc module has not.
static inline void clinux_use_one_arena(void) { mallopt(M_ARENA_MAX, 1); }

// What the CPUID instruction answers for a leaf, by value.
struct clinux_cpuid {
  uint32_t eax, ebx, ecx, edx;
};
static inline struct clinux_cpuid clinux_cpuid(uint32_t leaf) {
  struct clinux_cpuid result;
  __cpuid_count(leaf, 0, result.eax, result.ebx, result.ecx, result.edx);
  return result;
}

// CRC-32C by the processor's instruction, where it has it (Intel SDM vol 2A, CRC32: SSE4.2).
static inline int clinux_has_crc32(void) { return clinux_cpuid(1).ecx >> 20 & 1; }
static inline uint32_t clinux_crc32(uint32_t crc, const uint8_t *bytes, size_t count) {
  uint64_t wide = crc;
  for (; count >= 8; bytes += 8, count -= 8)
    __asm__("crc32q %1, %0" : "+r"(wide) : "m"(*(const uint64_t __attribute__((may_alias)) *)bytes));
  crc = (uint32_t)wide;
  for (; count; bytes++, count--) __asm__("crc32b %1, %0" : "+r"(crc) : "m"(*bytes));
  return crc;
}

// A new inotify(7) that tells when the file at `path` is opened.
static inline int clinux_watch_opening(const char *path) {
  int fd = inotify_init1(IN_CLOEXEC);
  if (fd >= 0 && inotify_add_watch(fd, path, IN_OPEN) < 0) {
    int error = errno;
    close(fd);
    errno = error;
    return -1;
  }
  return fd;
}

// Close-on-exec, as all of them are.
static inline int clinux_pidfd_open(int process) { return (int)syscall(SYS_pidfd_open, process, 0); }

static inline void clinux_pidfd_kill(int pidfd) {
  syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
}

static inline int clinux_set_thread_name(const char *name) {
  return prctl(PR_SET_NAME, name, 0, 0, 0);
}

// Not before what comes before it, not after what comes behind (Intel SDM vol 2, RDTSC).
static inline uint64_t clinux_cycles(void) {
  uint32_t low, high;
  __asm__ volatile("lfence\n\trdtsc\n\tlfence" : "=a"(low), "=d"(high) : : "memory");
  return (uint64_t)high << 32 | low;
}

// pipe2 is there only with _GNU_SOURCE; the first end is for reading.
static inline int clinux_pipe(int ends[2]) { return (int)syscall(SYS_pipe2, ends, 02000000); }

static inline ssize_t clinux_getrandom(void *bytes, size_t count) {
  return getrandom(bytes, count, 0);
}

// struct epoll_event is packed and ends in a union: hand its number out by value.

static inline int clinux_epoll_add(int epoll, int fd, uint32_t events, uint64_t number) {
  struct epoll_event event = {.events = events, .data.u64 = number};
  return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}
static inline int clinux_epoll_change(int epoll, int fd, uint32_t events, uint64_t number) {
  struct epoll_event event = {.events = events, .data.u64 = number};
  return epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event);
}
static inline int clinux_epoll_remove(int epoll, int fd) {
  struct epoll_event event = {0};
  return epoll_ctl(epoll, EPOLL_CTL_DEL, fd, &event);
}
// Returns how many events came (0 or 1) or -1; puts the event's number in *number.
// epoll_pwait2(2) has the precision, epoll_wait(2) is there before Linux 5.11; negative: for ever.
static inline int clinux_epoll_next(int epoll, int64_t nanoseconds, uint64_t *number) {
  struct epoll_event event;
  struct timespec limit = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
  int count = syscall(SYS_epoll_pwait2, epoll, &event, 1, nanoseconds < 0 ? NULL : &limit, NULL, 0);
  if (count < 0 && errno == ENOSYS) {
    int64_t milliseconds = nanoseconds / 1000000 + (nanoseconds % 1000000 > 0);
    count = epoll_wait(epoll, &event, 1,
                       nanoseconds < 0 ? -1 : milliseconds > 1000000000 ? 1000000000 : milliseconds);
  }
  if (count == 1) *number = event.data.u64;
  return count;
}

// accept4(2) is _GNU_SOURCE's; the new socket never waits.
int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags);

static inline int clinux_accept(int fd) {
  int socket;
  // Another may wait behind one that has gone.
  do socket = accept4(fd, NULL, NULL, O_CLOEXEC | O_NONBLOCK);
  while (socket < 0 && (errno == EINTR || errno == ECONNABORTED));
  return socket;
}

// Block devices: <linux/fs.h> has these requests as expressions that Swift can't import.

static const uint32_t CLINUX_BLKGETSIZE64 = BLKGETSIZE64;
static inline int clinux_block_size(int fd, uint64_t *bytes) {
  return ioctl(fd, BLKGETSIZE64, bytes);
}

// Locks of an open file description (F_OFD_SETLK, F_OFD_GETLK) and SEEK_DATA, SEEK_HOLE, O_TMPFILE
// are _GNU_SOURCE's. Their numbers are the same on all of Linux's 64-bit architectures but O_TMPFILE's.
enum {
  CLINUX_F_OFD_GETLK = 36,
  CLINUX_F_OFD_SETLK = 37,
  CLINUX_SEEK_DATA = 3,
  CLINUX_SEEK_HOLE = 4,
  CLINUX_O_TMPFILE = 020000000 | 0200000,
};

static inline int clinux_lock(int fd, int type, int64_t start, int64_t count) {
  struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = count};
  return fcntl(fd, CLINUX_F_OFD_SETLK, &lock);
}
// 1 if somebody else's lock is in the way of a lock for writing, 0 if not, -1 for an error.
static inline int clinux_is_locked(int fd, int64_t start, int64_t count) {
  struct flock lock = {
      .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = count};
  if (fcntl(fd, CLINUX_F_OFD_GETLK, &lock) < 0) return -1;
  return lock.l_type != F_UNLCK;
}

// Unix sockets: addresses and ancillary data are made of macros that Swift can't import.

enum { CLINUX_MOST_DESCRIPTORS = 16 };

// connect(2) or, if `binds` is set, bind(2); ENAMETOOLONG for a path that has no room.
static inline int clinux_unix_name(int fd, const char *path, int binds) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof name.sun_path) { errno = ENAMETOOLONG; return -1; }
  // Linux would choose a name that no path has.
  if (path[0] == 0) { errno = ENOENT; return -1; }
  strcpy(name.sun_path, path);
  return binds ? bind(fd, (struct sockaddr *)&name, sizeof name)
               : connect(fd, (struct sockaddr *)&name, sizeof name);
}

// struct ucred is _GNU_SOURCE's: the user and the process on the other side of a connection, or -1.
struct clinux_credentials {
  int32_t process;
  uint32_t user, group;
};
static inline int clinux_peer(int fd, struct clinux_credentials *peer) {
  socklen_t size = sizeof *peer;
  return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, peer, &size);
}
static inline int64_t clinux_peer_user(int fd) {
  struct clinux_credentials peer;
  return clinux_peer(fd, &peer) == 0 ? peer.user : -1;
}
static inline int32_t clinux_peer_process(int fd) {
  struct clinux_credentials peer;
  return clinux_peer(fd, &peer) == 0 ? peer.process : -1;
}

// close_range(2) is there from Linux 5.9 on; before that, the numbers that a program usually has.
static inline void clinux_close_from(int first) {
  if (syscall(SYS_close_range, first, ~0u, 0) == 0) return;
  for (int fd = first; fd < 1024; fd++) close(fd);
}

// Swift's importer refuses fork(2): a copy of a process with threads has only the one that called.
static inline int clinux_fork(void) { return fork(); }

union clinux_control {
  struct cmsghdr header;
  char bytes[CMSG_SPACE(CLINUX_MOST_DESCRIPTORS * sizeof(int))];
};

// sendmsg(2) with up to CLINUX_MOST_DESCRIPTORS descriptors (SCM_RIGHTS); never waits, never SIGPIPE.
static inline ssize_t clinux_send(
    int socket, const void *bytes, size_t count, const int *fds, size_t fd_count) {
  union clinux_control control = {0};
  struct iovec part = {(void *)bytes, count};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (fd_count > CLINUX_MOST_DESCRIPTORS) { errno = EINVAL; return -1; }
  if (fd_count > 0) {
    message.msg_control = &control;
    message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(fd_count * sizeof(int));
    memcpy(CMSG_DATA(&control.header), fds, fd_count * sizeof(int));
  }
  return sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

// recvmsg(2) without waiting; puts the descriptors that came, close-on-exec, into `fds`, which has room
// for CLINUX_MOST_DESCRIPTORS. EMSGSIZE, and none of them, where more came.
static inline ssize_t clinux_receive(
    int socket, void *bytes, size_t count, int *fds, size_t *fd_count) {
  union clinux_control control = {0};
  struct iovec part = {bytes, count};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                           .msg_controllen = sizeof control};
  *fd_count = 0;
  ssize_t length;
  do length = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  while (length < 0 && errno == EINTR);
  if (length < 0) return -1;
  // The room is for one message of rights: there is never a second one in it.
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
    *fd_count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    memcpy(fds, CMSG_DATA(header), *fd_count * sizeof(int));
  }
  if (message.msg_flags & MSG_CTRUNC) {
    for (size_t index = 0; index < *fd_count; index++) close(fds[index]);
    *fd_count = 0;
    errno = EMSGSIZE;
    return -1;
  }
  return length;
}

// memfd_create(2)'s seals (F_ADD_SEALS, F_GET_SEALS) are _GNU_SOURCE's too.
enum {
  CLINUX_SEAL_SEAL = 1,
  CLINUX_SEAL_SHRINK = 2,
  CLINUX_SEAL_GROW = 4,
};

static inline int clinux_add_seals(int fd, int seals) { return fcntl(fd, 1033, seals); }
static inline int clinux_get_seals(int fd) { return fcntl(fd, 1034); }
// The C library's has no declaration that Swift sees.
static inline int clinux_rename(const char *old, const char *new_name, unsigned flags) {
  return (int)syscall(SYS_renameat2, AT_FDCWD, old, AT_FDCWD, new_name, flags);
}

// TUN/TAP: the requests are expressions, and struct ifreq ends in a union: only its name and flags
// matter here, and the rest of its 40 bytes is zero.

static const uint32_t CLINUX_TUN_SET_QUEUE = TUNSETQUEUE;
static const uint32_t CLINUX_TUN_SET_OFFLOAD = TUNSETOFFLOAD;
static const uint32_t CLINUX_TUN_SET_HEADER = TUNSETVNETHDRSZ;

struct clinux_ifreq {
  char name[16];
  short flags;
  char rest[22];
};
static inline int clinux_tun_attach(int fd, const char *name, short flags) {
  struct clinux_ifreq request = {.flags = flags};
  strncpy(request.name, name, sizeof request.name - 1);
  return ioctl(fd, TUNSETIFF, &request);
}
// 1: its frames have virtio-net headers, 0: they have none, -1: no interface's.
static inline int clinux_tun_look(int fd, char name[16]) {
  struct clinux_ifreq request = {0};
  if (ioctl(fd, TUNGETIFF, &request) != 0) return -1;
  strncpy(name, request.name, 15);
  return (request.flags & IFF_TAP) && (request.flags & IFF_VNET_HDR) ? 1 : 0;
}
static inline int clinux_tun_set_queue(int fd, short flags) {
  struct clinux_ifreq request = {.flags = flags};
  return ioctl(fd, TUNSETQUEUE, &request);
}
static inline int clinux_tun_set_offload(int fd, unsigned flags) {
  return ioctl(fd, TUNSETOFFLOAD, (unsigned long)flags);
}
static inline int clinux_tun_set_header_size(int fd, int bytes) {
  return ioctl(fd, TUNSETVNETHDRSZ, &bytes);
}
