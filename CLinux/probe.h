// CLinux, a part: runs a few bytes of machine code in user mode and says what became of them.
//
// The code runs in a child process, which may fault, lose its stack or its segments as it likes: the
// process that asks is never touched. In the child only async-signal-safe functions are called.
#pragma once

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

// What became of the code. The memory is shared with the child.
struct clinux_probe {
  int32_t ended;        // 1: it returned; 2: a signal; 0: the child ended in another way
  int32_t signal;       // the signal, if any
  int32_t vector;       // the exception behind the signal, as the kernel noted it
  int32_t status;       // waitpid's status
  uint64_t error;       // the exception's error code
  uint64_t offset;      // RIP less the code's first byte
  uint64_t scratch[64]; // the code's RDI points here
  uint64_t code;        // where the code is, so that the handler can tell the offset
};

// The child's probe. Swift's importer emits no variables of files, but those of functions.
static inline struct clinux_probe **clinux_probe_current(void) {
  static struct clinux_probe *current;
  return &current;
}

static inline void clinux_probe_handler(int number, siginfo_t *info, void *context) {
  (void)info;
  // gregs' indices: REG_RIP 16, REG_ERR 19, REG_TRAPNO 20 (<sys/ucontext.h> under _GNU_SOURCE)
  const greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  struct clinux_probe *probe = *clinux_probe_current();
  probe->signal = number;
  probe->vector = (int32_t)registers[20];
  probe->error = (uint64_t)registers[19];
  probe->offset = (uint64_t)registers[16] - probe->code;
  probe->ended = 2;
  _exit(0);
}

static inline void clinux_probe_child(struct clinux_probe *probe, uint64_t entry) {
  static char stack[16384];
  stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
  sigaltstack(&alternate, 0);
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = clinux_probe_handler;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  *clinux_probe_current() = probe;
  static const int numbers[] = {SIGSEGV, SIGILL, SIGBUS, SIGTRAP, SIGFPE};
  for (unsigned i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, numbers[i]);
    sigprocmask(SIG_UNBLOCK, &set, 0);
    sigaction(numbers[i], &action, 0);
  }
  alarm(5);
  ((void (*)(uint64_t *))(probe->code + entry))(probe->scratch);
  probe->ended = 1;
  _exit(0);
}

// Runs the code at `entry` bytes from the start of `image`, below 4 GiB, with RDI = a scratch area
// that begins with `scratch`. Returns 0, or -1 with errno where no child could be made.
static inline int clinux_probe_run(const uint8_t *image, unsigned long size, uint64_t entry,
                                   const uint64_t scratch[64], struct clinux_probe *result) {
  struct clinux_probe *probe = (struct clinux_probe *)mmap(
      0, sizeof *probe, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (probe == MAP_FAILED) return -1;
  // 0x40 is MAP_32BIT: far pointers of the code hold 32-bit offsets.
  void *code = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | 0x40, -1, 0);
  if (code == MAP_FAILED) {
    munmap(probe, sizeof *probe);
    return -1;
  }
  memcpy(code, image, size);
  memcpy(probe->scratch, scratch, sizeof probe->scratch);
  probe->code = (uint64_t)code;
  pid_t child = mprotect(code, size, PROT_READ | PROT_EXEC) < 0 ? -1 : fork();
  if (child == 0) clinux_probe_child(probe, entry);
  // Not for ever: a kernel that code made stumble may not even be able to end the child.
  int status = 0;
  struct timespec pause = {.tv_nsec = 200000};
  for (int turns = 0; child > 0 && waitpid(child, &status, WNOHANG) == 0; turns++) {
    if (turns == 35000) {
      kill(child, SIGKILL);
      status = SIGKILL;
      break;
    }
    nanosleep(&pause, 0);
  }
  probe->status = status;
  *result = *probe;
  munmap(code, size);
  munmap(probe, sizeof *probe);
  return child < 0 ? -1 : 0;
}
