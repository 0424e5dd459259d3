// Preloaded by scripts/faults: no read or write of a file or pipe does all that it is asked for, or, with
// KVMLITE_CUT=interrupt, half of the calls that may wait are interrupted before they begin.
//
// Sockets of messages, devices and what counts (eventfd(2) and its like) are left alone: those take all or
// nothing.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define NEXT(name) ((__typeof__(&name))next(&name##_next, #name))

static int interrupts;

__attribute__((constructor)) static void begin(void) {
  const char *cut = getenv("KVMLITE_CUT");
  interrupts = cut && cut[0] == 'i';
}

static void *next(void **found, const char *name) {
  if (!*found) *found = dlsym(RTLD_NEXT, name);
  return *found;
}

// Half of a thread's calls, without a rhythm that a loop could fall into.
static int interrupted(void) {
  static __thread unsigned number;
  number = number * 1103515245 + 12345;
  if (!interrupts || number >> 16 & 1) return 0;
  errno = EINTR;
  return 1;
}

static int divisible(int fd) {
  struct stat status;
  int saved = errno;
  int result = !interrupts && fstat(fd, &status) == 0 &&
               (S_ISREG(status.st_mode) || S_ISFIFO(status.st_mode) || S_ISBLK(status.st_mode));
  errno = saved;
  return result;
}

// Half of it, in sectors where there are several: O_DIRECT takes no less.
static size_t part(int fd, size_t count) {
  if (count < 2 || !divisible(fd)) return count;
  return count >= 1024 ? count / 2 & ~(size_t)511 : count / 2;
}

static void *read_next, *write_next, *pread_next, *pwrite_next;

ssize_t read(int fd, void *bytes, size_t count) {
  return interrupted() ? -1 : NEXT(read)(fd, bytes, part(fd, count));
}
ssize_t write(int fd, const void *bytes, size_t count) {
  return interrupted() ? -1 : NEXT(write)(fd, bytes, part(fd, count));
}
ssize_t pread(int fd, void *bytes, size_t count, off_t at) {
  return interrupted() ? -1 : NEXT(pread)(fd, bytes, part(fd, count), at);
}
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
  return interrupted() ? -1 : NEXT(pwrite)(fd, bytes, part(fd, count), at);
}

// The first of several pieces, or a part of one alone.
static const struct iovec *pieces(int fd, const struct iovec *all, int *count, struct iovec *one) {
  if (*count < 1 || !divisible(fd)) return all;
  *one = *all;
  if (*count == 1) one->iov_len = part(fd, all->iov_len);
  *count = 1;
  return one;
}

#define VECTORS(name, parameters, arguments)                                       \
  static void *name##_next;                                                        \
  ssize_t name parameters {                                                        \
    struct iovec one;                                                              \
    if (interrupted()) return -1;                                                  \
    vectors = pieces(fd, vectors, &count, &one);                                   \
    return NEXT(name) arguments;                                                   \
  }

VECTORS(readv, (int fd, const struct iovec *vectors, int count), (fd, vectors, count))
VECTORS(writev, (int fd, const struct iovec *vectors, int count), (fd, vectors, count))
VECTORS(preadv, (int fd, const struct iovec *vectors, int count, off_t at), (fd, vectors, count, at))
VECTORS(pwritev, (int fd, const struct iovec *vectors, int count, off_t at), (fd, vectors, count, at))

static void *poll_next, *epoll_wait_next, *accept4_next, *sendmsg_next, *recvmsg_next;

int poll(struct pollfd *files, nfds_t count, int time) {
  return interrupted() ? -1 : NEXT(poll)(files, count, time);
}
int epoll_wait(int fd, struct epoll_event *events, int count, int time) {
  return interrupted() ? -1 : NEXT(epoll_wait)(fd, events, count, time);
}
int accept4(int fd, struct sockaddr *name, socklen_t *size, int flags) {
  return interrupted() ? -1 : NEXT(accept4)(fd, name, size, flags);
}
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
  return interrupted() ? -1 : NEXT(sendmsg)(fd, message, flags);
}
ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
  return interrupted() ? -1 : NEXT(recvmsg)(fd, message, flags);
}
