// The guest's side of the vsock tests; busybox has no vsock. Built by scripts/kernels.
//
//   vsock listen PORT COUNT   gives COUNT connections back what they send
//   vsock connect PORT        sends standard input to the host, prints what comes back
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>

static int fail(const char *what) {
  perror(what);
  return 1;
}

static int write_all(int fd, const char *bytes, ssize_t count) {
  while (count > 0) {
    ssize_t done = write(fd, bytes, count);
    if (done < 0) return -1;
    bytes += done;
    count -= done;
  }
  return 0;
}

static int echo(int connection) {
  static char bytes[65536];
  ssize_t count;
  while ((count = read(connection, bytes, sizeof bytes)) > 0)
    if (write_all(connection, bytes, count) < 0) return -1;
  return count < 0 ? -1 : 0;
}

static int exchange(int connection) {
  static char bytes[65536];
  struct pollfd files[2] = {{.fd = 0, .events = POLLIN}, {.fd = connection, .events = POLLIN}};
  for (;;) {
    if (poll(files, 2, -1) < 0) return fail("poll");
    if (files[0].revents) {
      ssize_t count = read(0, bytes, sizeof bytes);
      if (count > 0) {
        if (write_all(connection, bytes, count) < 0) return fail("write");
      } else {
        shutdown(connection, SHUT_WR);
        files[0].fd = -1;
      }
    }
    if (files[1].revents) {
      ssize_t count = read(connection, bytes, sizeof bytes);
      if (count < 0) return fail("read");
      if (count == 0) return 0;
      if (write_all(1, bytes, count) < 0) return fail("write");
    }
  }
}

int main(int count, char **words) {
  if (count < 3) return 64;
  struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_port = atoi(words[2])};
  int file = socket(AF_VSOCK, SOCK_STREAM, 0);
  if (file < 0) return fail("socket");
  if (!strcmp(words[1], "connect")) {
    address.svm_cid = VMADDR_CID_HOST;
    if (connect(file, (struct sockaddr *)&address, sizeof address) < 0) return fail("connect");
    return exchange(file);
  }
  address.svm_cid = VMADDR_CID_ANY;
  if (bind(file, (struct sockaddr *)&address, sizeof address) < 0) return fail("bind");
  if (listen(file, 64) < 0) return fail("listen");
  puts("vsock: listening");
  fflush(stdout);
  for (int left = count > 3 ? atoi(words[3]) : 1; left > 0; left--) {
    int connection = accept(file, NULL, NULL);
    if (connection < 0) return fail("accept");
    if (echo(connection) < 0) return fail("echo");
    close(connection);
  }
  return 0;
}
