/// What somebody does who has taken over a thread of kvmlite's, in debug builds: the environment's
/// `KVMLITE_TAKEOVER` is `ROLE:CALL`.
package enum Takeovers {
  /// A system call that would help it, by name, number and arguments; `path` stands for /etc/passwd.
  package static let acts: [(name: String, call: String)] = [
    ("openat", "257:-100:path:0"), ("open", "2:path:0"), ("execve", "59:path:0:0"),
    ("socket", "41:2:1:0"), ("socket", "41:1:1:0"), ("connect", "42:0:path:16"),
    ("bind", "49:0:path:16"), ("ptrace", "101:16:1:0:0"), ("kill", "62:1:0"),
    ("tgkill", "234:1:1:0"), ("process_vm_readv", "310:1:path:1:path:1:0"),
    ("mount", "165:path:path:path:0:0"), ("unshare", "272:268435456"), ("setns", "308:0:0"),
    ("mmap", "9:0:4096:7:34:-1:0"), ("mprotect", "10:0:4096:4"), ("fork", "57"),
    ("clone", "56:17:0:0:0:0"), ("setuid", "105:0"), ("capset", "126:path:path"),
    ("unlink", "87:path"), ("rename", "82:path:path"), ("chmod", "90:path:511"),
    ("io_uring_setup", "425:1:path"), ("bpf", "321:0:path:8"), ("pidfd_open", "434:1:0"),
    ("keyctl", "250:0"), ("init_module", "175:path:1:path"), ("memfd_secret", "447:0"),
    ("open_by_handle_at", "304:0:path:0"), ("prctl", "157:4:1:0:0:0"),
    // TIOCSTI, which types into the terminal
    ("ioctl", "16:0:21522:path"),
  ]
}
