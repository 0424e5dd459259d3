// CLinux, a part: what a process gives up before it runs a guest, and what it does when a thread makes a
// system call that its filter has no room for.
//
// Each function returns what the system call returned, with errno set. No policy is here.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "call-names.h"

// Namespaces. <sched.h> has these under _GNU_SOURCE alone (clone(2)).
enum {
  CLINUX_NEWNS = 0x00020000,
  CLINUX_NEWUTS = 0x04000000,
  CLINUX_NEWIPC = 0x08000000,
  CLINUX_NEWUSER = 0x10000000,
  CLINUX_NEWNET = 0x40000000,
};

static inline int clinux_unshare(int flags) { return (int)syscall(SYS_unshare, flags); }
// From Linux 5.8 on `process` may be a pidfd.
static inline int clinux_setns(int process, int flags) {
  return (int)syscall(SYS_setns, process, flags);
}

// Leaves nothing of the file system: a mount without room, to be made in a mount namespace of one's own
// (pivot_root(2), "pivot_root(".", ".")"). `place` is any directory.
static inline int clinux_empty_root(const char *place) {
  const unsigned long flags = MS_NOEXEC | MS_NOSUID | MS_NODEV;
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) return -1;
  if (mount("none", place, "tmpfs", flags, "size=4k,nr_inodes=1,mode=555") < 0) return -1;
  if (chdir(place) < 0 || syscall(SYS_pivot_root, ".", ".") < 0) return -1;
  if (umount2(".", MNT_DETACH) < 0) return -1;
  return mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, NULL);
}

// Rights. capset(2) has no function in the C library; version 3 has two words for each set.
static inline int clinux_drop_capabilities(void) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct none[2] = {{0}};
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  return (int)syscall(SYS_capset, &header, none);
}
// For this thread alone: the C library's functions of that name ask all threads to do the same.
static inline int clinux_become(uint32_t user, uint32_t group) {
  if (syscall(SYS_setgroups, 0, NULL) < 0) return -1;
  if (syscall(SYS_setresgid, group, group, group) < 0) return -1;
  return (int)syscall(SYS_setresuid, user, user, user);
}
static inline int clinux_no_new_rights(void) { return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); }
// From Linux 5.9 on; those between and behind the two that are kept.
static inline int clinux_close_all(unsigned first, unsigned kept) {
  if (kept > first && syscall(SYS_close_range, first, kept - 1, 0) < 0) {
    for (unsigned fd = first; fd < 1024; fd++)
      if (fd != kept) close((int)fd);
    return 0;
  }
  return (int)syscall(SYS_close_range, kept < first ? first : kept + 1, ~0u, 0);
}
// Both limits of a resource.
static inline int clinux_limit(int resource, uint64_t most) {
  struct rlimit limit = {most, most};
  return setrlimit(resource, &limit);
}
static inline int clinux_limit_descriptors(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return -1;
  limit.rlim_max = limit.rlim_cur;
  return setrlimit(RLIMIT_NOFILE, &limit);
}
static inline int clinux_not_dumpable(void) { return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); }

// Landlock (Documentation/userspace-api/landlock.rst), which <linux/landlock.h> may know less of than the
// kernel. Version 1 is Linux 5.13; -1 where there is none.
static inline int clinux_landlock_version(void) {
  return (int)syscall(444, NULL, 0, 1);
}
// Takes from this thread, and those that it starts, all rights on files and TCP ports that this version
// knows.
static inline int clinux_landlock(int version) {
  struct {
    uint64_t files, ports, scopes;
  } rules = {0};
  size_t size = version < 4 ? 8 : version < 6 ? 16 : 24;
  rules.files = (1u << (version < 2 ? 13 : version < 3 ? 14 : version < 5 ? 15 : 16)) - 1;
  if (version >= 4) rules.ports = 3;
  if (version >= 6) rules.scopes = 3;
  int fd = (int)syscall(444, &rules, size, 0);
  if (fd < 0) return -1;
  int result = (int)syscall(446, fd, 0);
  close(fd);
  return result;
}

// System call filters

static const uint32_t CLINUX_ARCHITECTURE = AUDIT_ARCH_X86_64;
static const uint32_t CLINUX_FILTER_ALLOW = SECCOMP_RET_ALLOW;
static const uint32_t CLINUX_FILTER_ERRNO = SECCOMP_RET_ERRNO;
static const uint32_t CLINUX_FILTER_TRAP = SECCOMP_RET_TRAP;
static const uint32_t CLINUX_FILTER_KILL = SECCOMP_RET_KILL_PROCESS;

static inline int clinux_filter(struct sock_filter *program, uint16_t count) {
  struct sock_fprog filter = {.len = count, .filter = program};
  return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter);
}

// Starts a program that keeps two files, as its standard output and as number 3, and little else: with
// `user`, it is that one. It is not run without that or the filter. Its number, or -1. Between fork(2) and
// execve(2) only what may be done there.
static inline int clinux_start_confined(const char *path, char *const *arguments,
                                        char *const *environment, int output, int file, uint32_t user,
                                        struct sock_filter *program, uint16_t count) {
  int child = fork();
  if (child != 0) return child;
  sigset_t none;
  sigemptyset(&none);
  for (int number = 1; number < 32; number++) signal(number, SIG_DFL);
  sigprocmask(SIG_SETMASK, &none, NULL);
  setpgid(0, 0);
  int nothing = open("/dev/null", O_RDWR);
  output = fcntl(output, F_DUPFD, 10), file = fcntl(file, F_DUPFD, 10);
  if (dup2(nothing, 0) < 0 || dup2(output, 1) < 0 || dup2(nothing, 2) < 0 || dup2(file, 3) < 0) _exit(126);
  clinux_close_all(4, 0);
  clinux_limit(RLIMIT_AS, 1ull << 30);
  clinux_limit(RLIMIT_CPU, 10);
  clinux_limit(RLIMIT_FSIZE, 0);
  clinux_limit(RLIMIT_CORE, 0);
  if (user != 0 && clinux_become(user, user) < 0) _exit(126);
  // A change of user takes it back.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  clinux_drop_capabilities();
  if (clinux_no_new_rights() < 0 || clinux_filter(program, count) < 0) _exit(126);
  execve(path, arguments, environment);
  _exit(127);
}

// A system call that no C library stands in the way of; the kernel's own result. With `where`, only tells
// the address that the kernel sees it come from.
__attribute__((noinline)) static int64_t clinux_raw_call(int64_t number, const int64_t *arguments,
                                                         uint64_t *where) {
  register int64_t r10 __asm__("r10") = arguments[3];
  register int64_t r8 __asm__("r8") = arguments[4];
  register int64_t r9 __asm__("r9") = arguments[5];
  int64_t result = number;
  uint64_t address;
  __asm__ volatile(
      "leaq 1f(%%rip), %1\n\ttestq %8, %8\n\tjnz 1f\n\tsyscall\n1:"
      : "+a"(result), "=&b"(address)
      : "D"(arguments[0]), "S"(arguments[1]), "d"(arguments[2]), "r"(r10), "r"(r8), "r"(r9),
        "r"((uint64_t)(uintptr_t)where)
      : "rcx", "r11", "memory", "cc");
  if (where) *where = address;
  return result;
}

// What a filter stopped.
struct clinux_violation {
  int64_t number;
  int64_t arguments[6];
  char thread[16];
};

struct clinux_sandbox {
  // Whether calls that a filter stops are noted and made all the same.
  int32_t only_notes;
  // What is done before the process ends without more ado; only what may be done in a signal's handler.
  void (*before_end)(void);
  // An eventfd for whoever tells of the first one (-1 if nobody does), and that.
  int32_t event;
  volatile int32_t count;
  struct clinux_violation first;
};

// Swift's importer emits no variables of files, but those of functions.
static inline struct clinux_sandbox *clinux_sandbox(void) {
  static struct clinux_sandbox sandbox = {.event = -1};
  return &sandbox;
}

static inline char *clinux_put(char *out, char *end, const char *text) {
  while (*text && out < end) *out++ = *text++;
  return out;
}
static inline char *clinux_put_number(char *out, char *end, uint64_t value, unsigned base) {
  char digits[24], *digit = digits + sizeof digits;
  *--digit = 0;
  do *--digit = "0123456789abcdef"[value % base], value /= base; while (value);
  return clinux_put(out, end, digit);
}
// "thread vcpu0 made the system call openat (257) with 0xffffff9c, ...", as far as there is room.
static inline size_t clinux_violation_text(const struct clinux_violation *it, char *text, size_t room) {
  char *out = text, *end = text + room;
  out = clinux_put(out, end, "thread ");
  out = clinux_put(out, end, it->thread);
  out = clinux_put(out, end, " made the system call ");
  out = clinux_put(out, end, clinux_call_name(it->number));
  out = clinux_put(out, end, " (");
  out = clinux_put_number(out, end, (uint64_t)it->number, 10);
  out = clinux_put(out, end, ") with");
  for (int index = 0; index < 6; index++) {
    out = clinux_put(out, end, index ? ", 0x" : " 0x");
    out = clinux_put_number(out, end, (uint64_t)it->arguments[index], 16);
  }
  return (size_t)(out - text);
}

// Only async-signal-safe functions are called here: the thread may be anywhere, and may be the guest's.
static inline void clinux_on_violation(int signal, siginfo_t *info, void *context) {
  (void)signal;
  struct clinux_sandbox *sandbox = clinux_sandbox();
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  int error = errno;
  struct clinux_violation now = {.number = info->si_syscall,
                                 // RDI, RSI, RDX, R10, R8, R9
                                 .arguments = {registers[8], registers[9], registers[12],
                                               registers[2], registers[0], registers[1]}};
  prctl(PR_GET_NAME, now.thread, 0, 0, 0);
  now.thread[15] = 0;
  int before = __atomic_fetch_add(&sandbox->count, 1, __ATOMIC_ACQ_REL);
  char text[512];
  char *out = text, *end = text + sizeof text - 2;
  if (sandbox->only_notes && before < 100) {
    out = clinux_put(out, end, "kvmlite: sandbox: ");
    out += clinux_violation_text(&now, out, (size_t)(end - out));
    *out++ = '\n';
    (void)!write(2, text, (size_t)(out - text));
  }
  if (sandbox->only_notes) {
    // RAX
    registers[13] = clinux_raw_call(now.number, now.arguments, NULL);
    errno = error;
    return;
  }
  uint64_t one = 1;
  if (before == 0) {
    sandbox->first = now;
    (void)!write(sandbox->event, &one, sizeof one);
  }
  // Nothing that this thread wants is done any more. Whoever tells of it ends the process; if that is this
  // very thread, doesn't come to it, or isn't there, the process ends without.
  struct timespec patience = {.tv_sec = sandbox->event < 0 ? 0 : 3};
  int64_t sleep[6] = {(int64_t)(uintptr_t)&patience, (int64_t)(uintptr_t)&patience};
  if (syscall(SYS_gettid) != getpid())
    while (clinux_raw_call(SYS_nanosleep, sleep, NULL) == -EINTR) {}
  out = clinux_put(out, end, "kvmlite: sandbox: ");
  out += clinux_violation_text(&now, out, (size_t)(end - out));
  out = clinux_put(out, end, "; the run ends here\n");
  if (sandbox->before_end) sandbox->before_end();
  (void)!write(2, text, (size_t)(out - text));
  _exit(71);
}

// `event` is an eventfd that is raised at the first violation; -1 for none.
static inline int clinux_take_violations(int only_notes, int event) {
  clinux_sandbox()->only_notes = only_notes;
  clinux_sandbox()->event = event;
  struct sigaction action = {.sa_flags = SA_SIGINFO | SA_NODEFER};
  action.sa_sigaction = clinux_on_violation;
  return sigaction(SIGSYS, &action, NULL);
}
