// The guest's side of scripts/bench --io: 4 KiB requests to a disk without the page cache, by Linux's
// native asynchronous I/O, so that any number of them are under way.
//
//   io-load DEVICE OPERATIONS    a line for each pattern: "io PATTERN OPERATIONS NANOSECONDS"
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <linux/fs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { size = 4096, deepest = 32 };

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000ull + time.tv_nsec;
}

// xorshift64: the same places in every run.
static uint64_t next(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

static void run(int disk, uint64_t blocks, int operations, int writes, int random, int depth) {
  aio_context_t context = 0;
  if (syscall(SYS_io_setup, depth, &context)) fail("io_setup");
  char *buffers = aligned_alloc(size, depth * size);
  memset(buffers, 0xA5, depth * size);
  struct iocb requests[deepest];
  uint64_t state = 0x9E3779B97F4A7C15;
  int started = 0, done = 0, idle[deepest], idles = depth;
  for (int i = 0; i < depth; i++) idle[i] = i;
  uint64_t start = now();
  while (done < operations) {
    struct iocb *batch[deepest];
    int count = 0;
    while (idles > 0 && started < operations) {
      int slot = idle[--idles];
      uint64_t block = (random ? next(&state) : (uint64_t)started) % blocks;
      requests[slot] = (struct iocb){
        .aio_data = slot, .aio_lio_opcode = writes ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
        .aio_fildes = disk, .aio_buf = (uintptr_t)(buffers + slot * size), .aio_nbytes = size,
        .aio_offset = block * size};
      batch[count++] = &requests[slot];
      started++;
    }
    for (int sent = 0; sent < count;) {
      long more = syscall(SYS_io_submit, context, count - sent, batch + sent);
      if (more < 0) fail("io_submit");
      sent += more;
    }
    struct io_event events[deepest];
    long came = syscall(SYS_io_getevents, context, 1, depth, events, NULL);
    if (came < 0) fail("io_getevents");
    for (long i = 0; i < came; i++) {
      if (events[i].res != size) fail("request");
      idle[idles++] = events[i].data;
    }
    done += came;
  }
  uint64_t time = now() - start;
  printf("io %s-%s-%d %d %llu\n", random ? "random" : "sequential", writes ? "write" : "read", depth,
         operations, (unsigned long long)time);
  syscall(SYS_io_destroy, context);
  free(buffers);
}

int main(int count, char **words) {
  if (count < 3) return 64;
  int disk = open(words[1], O_RDWR | O_DIRECT);
  uint64_t bytes;
  if (disk < 0 || ioctl(disk, BLKGETSIZE64, &bytes)) fail(words[1]);
  int operations = atoi(words[2]);
  for (int writes = 0; writes <= 1; writes++)
    for (int random = 0; random <= 1; random++)
      for (int depth = 1; depth <= deepest; depth *= deepest)
        run(disk, bytes / size, operations, writes, random, depth);
  return 0;
}
