// Both sides of the network part of scripts/bench --io: bytes over one TCP connection, each way.
//
//   net-load serve ADDRESS PORT           for whoever calls, until it is killed; says "serving" first
//   net-load call ADDRESS PORT BYTES      a line for each way: "net WAY BYTES NANOSECONDS"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

// What the caller says first.
struct wish {
  uint64_t bytes;
  char way;  // 's': the caller sends; 'r': the caller receives
};

static char buffer[1 << 16];

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void give(int peer, uint64_t bytes) {
  while (bytes > 0) {
    ssize_t count = write(peer, buffer, bytes < sizeof buffer ? bytes : sizeof buffer);
    if (count <= 0) fail("write");
    bytes -= count;
  }
}

static void take(int peer, uint64_t bytes) {
  while (bytes > 0) {
    ssize_t count = read(peer, buffer, bytes < sizeof buffer ? bytes : sizeof buffer);
    if (count <= 0) fail("read");
    bytes -= count;
  }
}

static void serve(struct sockaddr_in *address) {
  int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (bind(listener, (struct sockaddr *)address, sizeof *address)) fail("bind");
  if (listen(listener, 4)) fail("listen");
  puts("serving");
  fflush(stdout);
  signal(SIGCHLD, SIG_IGN);
  for (;;) {
    int peer = accept(listener, NULL, NULL);
    if (peer < 0) fail("accept");
    if (fork() == 0) {
      struct wish wish;
      if (recv(peer, &wish, sizeof wish, MSG_WAITALL) != sizeof wish) fail("recv");
      if (wish.way == 's') {
        take(peer, wish.bytes);
        give(peer, 1);
      } else {
        give(peer, wish.bytes);
      }
      exit(0);
    }
    close(peer);
  }
}

static void call(struct sockaddr_in *address, uint64_t bytes, char way, const char *name) {
  int peer = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(peer, (struct sockaddr *)address, sizeof *address)) fail("connect");
  struct wish wish;
  memset(&wish, 0, sizeof wish);
  wish.bytes = bytes;
  wish.way = way;
  uint64_t start = now();
  if (write(peer, &wish, sizeof wish) != sizeof wish) fail("write");
  if (way == 's') {
    give(peer, bytes);
    take(peer, 1);  // all of it has come
  } else {
    take(peer, bytes);
  }
  printf("net %s %llu %llu\n", name, (unsigned long long)bytes, (unsigned long long)(now() - start));
  close(peer);
}

int main(int count, char **words) {
  if (count < 4) return 64;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(words[3]))};
  if (!inet_aton(words[2], &address.sin_addr)) return 64;
  if (strcmp(words[1], "serve") == 0) serve(&address);
  if (count < 5) return 64;
  uint64_t bytes = strtoull(words[4], NULL, 10);
  call(&address, bytes, 's', "to-host");
  call(&address, bytes, 'r', "from-host");
  return 0;
}
