// CLinux: the parts of Linux's C library that Swift's Glibc module leaves out.
#pragma once

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <cpuid.h>
#include <linux/if_tun.h>
#include <linux/memfd.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>

// Declared by the C library only under _GNU_SOURCE, which a module's importer can't set.
int fallocate(int fd, int mode, off_t offset, off_t length);
int memfd_create(const char *name, unsigned flags);
int pipe2(int ends[2], int flags);
int posix_openpt(int flags);
int grantpt(int fd);
int unlockpt(int fd);
char *ptsname(int fd);
const char *strerrordesc_np(int number);
const char *strerrorname_np(int number);
const char *sigabbrev_np(int number);

// What the CPUID instruction answers for a leaf, by value.
struct clinux_cpuid {
  uint32_t eax, ebx, ecx, edx;
};
static inline struct clinux_cpuid clinux_cpuid(uint32_t leaf) {
  struct clinux_cpuid result;
  __cpuid_count(leaf, 0, result.eax, result.ebx, result.ecx, result.edx);
  return result;
}

static inline int clinux_set_thread_name(const char *name) {
  return prctl(PR_SET_NAME, name, 0, 0, 0);
}

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
static inline int clinux_epoll_next(int epoll, int milliseconds, uint64_t *number) {
  struct epoll_event event;
  int count = epoll_wait(epoll, &event, 1, milliseconds);
  if (count == 1) *number = event.data.u64;
  return count;
}

// accept4(2) is _GNU_SOURCE's; the new socket never waits.
int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags);

static inline int clinux_accept(int fd) {
  return accept4(fd, NULL, NULL, O_CLOEXEC | O_NONBLOCK);
}

// Block devices: <linux/fs.h> has these requests as expressions that Swift can't import.

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

// TUN/TAP: the requests are expressions, and struct ifreq ends in a union: only its name and flags
// matter here, and the rest of its 40 bytes is zero.

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
