// CLinux: the parts of Linux's C library that Swift's Glibc module leaves out.
#pragma once

#include <linux/memfd.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/timerfd.h>

// Declared by the C library only under _GNU_SOURCE, which a module's importer can't set.
int memfd_create(const char *name, unsigned flags);
int pipe2(int ends[2], int flags);
int posix_openpt(int flags);
int grantpt(int fd);
int unlockpt(int fd);
char *ptsname(int fd);
const char *strerrordesc_np(int number);
const char *strerrorname_np(int number);
const char *sigabbrev_np(int number);

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
