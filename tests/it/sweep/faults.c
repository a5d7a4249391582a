/* Fails, cuts short or kills at one chosen system call of a program: the FAULT_AT-th FAULT_CALL on a file of the class
 * FAULT_FILE below FAULT_UNDER, in the way FAULT_KIND says. Loaded with LD_PRELOAD; other programs that it starts are left
 * alone. Every call is also told to FAULT_LOG, one line each:
 *
 *     call <TAB> class <TAB> result <TAB> size <TAB> path <TAB> second path
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* No run takes so long: SIGALRM says that one hangs. */
enum { PATIENCE = 30 };

enum act { PASS, FAIL, HALF, TORN, KILL_AFTER };

static const char *under, *want_call, *want_file, *kind;
static long at;
static int log_fd = -1;
static atomic_long seen;
/* What every change fails with from some call on; 0 before. */
static atomic_int lasting;

__attribute__((constructor)) static void begin(void) {
    char program[PATH_MAX];
    long length = syscall(SYS_readlinkat, AT_FDCWD, "/proc/self/exe", program, PATH_MAX - 1);
    program[length > 0 ? length : 0] = 0;
    const char *name = strrchr(program, '/');
    if (!name || strcmp(name, "/lifeboat")) return;
    under = getenv("FAULT_UNDER");
    want_call = getenv("FAULT_CALL");
    want_file = getenv("FAULT_FILE");
    kind = getenv("FAULT_KIND");
    const char *n = getenv("FAULT_AT"), *log = getenv("FAULT_LOG");
    at = n ? atol(n) : 0;
    if (under && log) log_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (under) alarm(PATIENCE);
}

static void end_here(void) {
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

/* The class of a path; NULL when it is none of ours. */
static const char *class_of(const char *path) {
    if (!under || strncmp(path, under, strlen(under)) != 0) return NULL;
    const char *name = strrchr(path, '/');
    if (strstr(path, "/log/")) return "log";
    if (!strcmp(name, "/journal.jsonl")) return "journal";
    if (!strcmp(name, "/journal.reserve")) return "reserve";
    if (!strcmp(name, "/journal.holder")) return "holder";
    if (!strncmp(name, "/journal.torn", 13)) return "torn tail";
    if (!strcmp(name, "/engine.sock")) return "socket";
    if (strstr(path, "/output/")) return "output";
    if (strstr(path, "/report") || strstr(path, "/.report")) return "report";
    return "folder";
}

static const char *path_of(int fd, char *buffer) {
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, buffer, PATH_MAX - 1);
    buffer[length > 0 ? length : 0] = 0;
    return buffer;
}

static const char *resolve(int dir, const char *path, char *buffer) {
    if (path[0] == '/' || dir == AT_FDCWD) return path;
    path_of(dir, buffer);
    strncat(buffer, "/", PATH_MAX - strlen(buffer) - 1);
    strncat(buffer, path, PATH_MAX - strlen(buffer) - 1);
    return buffer;
}

static enum act fail(int error) {
    errno = error;
    return FAIL;
}

static enum act gate(const char *call, const char *class, int changes) {
    if (!class || !want_call) return PASS;
    /* What is said goes somewhere else, or nobody could tell what was said. */
    int said = !strncmp(class, "std", 3);
    if (lasting && changes && !said) return fail(lasting);
    if (strcmp(call, want_call) || strcmp(class, want_file) || atomic_fetch_add(&seen, 1) + 1 != at) return PASS;
    if (!strcmp(kind, "kill")) end_here();
    if (!strcmp(kind, "kill after") || !strcmp(kind, "power")) return KILL_AFTER;
    if (!strcmp(kind, "EIO")) return fail(EIO);
    if (!strcmp(kind, "EINTR")) return fail(EINTR);
    if (!strcmp(kind, "EMFILE")) return fail(EMFILE);
    if (!strcmp(kind, "EPIPE")) return fail(EPIPE);
    if (!strcmp(kind, "ENOSPC")) return fail(ENOSPC);
    if (!strcmp(kind, "short")) return HALF;
    if (!strcmp(kind, "torn")) return TORN;
    if (!strcmp(kind, "read-only")) return fail(lasting = EROFS);
    if (!strcmp(kind, "dead")) return fail(lasting = EIO);
    if (!strcmp(kind, "full") || !strcmp(kind, "full for good")) {
        lasting = ENOSPC;
        /* What still fits is written. */
        return strcmp(call, "write") ? fail(ENOSPC) : HALF;
    }
    fprintf(stderr, "no such kind of fault: %s\n", kind);
    abort();
}

/* Tells what was done, and ends the program where that is what the fault is. */
static long done(enum act act, const char *call, const char *class, long result, long size, const char *path,
                 const char *second) {
    if (!class) return result;
    int error = errno;
    if (log_fd >= 0) {
        char line[2 * PATH_MAX + 100];
        int length = snprintf(line, sizeof line, "%s\t%s\t%ld\t%ld\t%s\t%s\n", call, class, result, size, path, second);
        syscall(SYS_write, log_fd, line, length);
    }
    if (act == KILL_AFTER) end_here();
    /* Room that is given back can be used; a disk that is full for good has none to give. */
    if (result == 0 && !strcmp(call, "unlink") && kind && !strcmp(kind, "full")) lasting = 0;
    errno = error;
    return result;
}

static int open_at(int dir, const char *given, int flags, mode_t mode) {
    char buffer[PATH_MAX];
    const char *path = resolve(dir, given, buffer), *class = class_of(path);
    int creates = flags & O_CREAT;
    const char *call = creates ? "create" : "open";
    enum act act = gate(call, class, creates || (flags & O_ACCMODE) != O_RDONLY);
    if (act == FAIL) return -1;
    int existed = class && !syscall(SYS_faccessat, dir, given, F_OK);
    int fd = syscall(SYS_openat, dir, given, flags, mode);
    return done(act, call, class, fd, existed, path, "");
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open(const char *path, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, path, flags, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE(flags) return open_at(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE(flags) return open_at(dir, path, flags, mode); }

/* A call on a descriptor. Standard output and error count: they may be files on the same disk. */
#define ON_FD(call, changes) \
    char path[PATH_MAX]; \
    const char *class = fd == 1 ? "stdout" : fd == 2 ? "stderr" : class_of(path_of(fd, path)); \
    if (fd == 1 || fd == 2) path[0] = 0; \
    enum act act = gate(call, under ? class : NULL, changes); \
    if (act == FAIL) return -1;

ssize_t write(int fd, const void *bytes, size_t length) {
    ON_FD("write", 1)
    if ((act == HALF || act == TORN) && length > 1) length /= 2;
    long written = syscall(SYS_write, fd, bytes, length);
    return done(act == TORN ? KILL_AFTER : act, "write", class, written, 0, path, "");
}

ssize_t read(int fd, void *bytes, size_t length) {
    ON_FD("read", 0)
    if (act == HALF && length > 1) length = length > 700 ? 700 : length / 2;
    return done(act, "read", class, syscall(SYS_read, fd, bytes, length), 0, path, "");
}

ssize_t copy_file_range(int fd, off64_t *from, int to, off64_t *into, size_t length, unsigned flags) {
    ON_FD("copy", 1)
    return done(act, "copy", class, syscall(SYS_copy_file_range, fd, from, to, into, length, flags), 0, path, "");
}

static DIR *list(const char *path) {
    static DIR *(*real)(const char *);
    if (!real) real = (DIR * (*)(const char *)) dlsym(RTLD_NEXT, "opendir");
    return real(path);
}

/* What is durable once it is synced: the size of a file, or the names in a folder (size -1), with `/` between them. */
static long durable(int fd, const char *path, char *names) {
    struct stat meta;
    names[0] = 0;
    if (fstat(fd, &meta)) return 0;
    if (!S_ISDIR(meta.st_mode)) return meta.st_size;
    DIR *dir = list(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        strncat(names, entry->d_name, PATH_MAX - strlen(names) - 1);
        strncat(names, "/", PATH_MAX - strlen(names) - 1);
    }
    if (dir) closedir(dir);
    return -1;
}

static int sync_fd(int fd, long number) {
    ON_FD("sync", 1)
    char names[PATH_MAX];
    long size = under ? durable(fd, path, names) : 0;
    return done(act, "sync", class, syscall(number, fd), size, path, names);
}

int fsync(int fd) { return sync_fd(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_fd(fd, SYS_fdatasync); }

static int cut(int fd, off64_t length) {
    ON_FD("cut", 1)
    return done(act, "cut", class, syscall(SYS_ftruncate, fd, length), length, path, "");
}

int ftruncate(int fd, off_t length) { return cut(fd, length); }
int ftruncate64(int fd, off64_t length) { return cut(fd, length); }

int flock(int fd, int operation) {
    ON_FD("lock", 0)
    return done(act, "lock", class, syscall(SYS_flock, fd, operation), 0, path, "");
}

int close(int fd) {
    /* The descriptor is closed even where an error comes back. */
    char path[PATH_MAX];
    const char *class = class_of(path_of(fd, path));
    enum act act = gate("close", class, 0);
    int error = errno, result = syscall(SYS_close, fd);
    if (act == FAIL) errno = error;
    return done(act, "close", class, act == FAIL ? -1 : result, 0, path, "");
}

/* A call on a path. */
#define ON_PATH(call, dir, given, changes) \
    char buffer[PATH_MAX]; \
    const char *path = resolve(dir, given, buffer), *class = class_of(path); \
    enum act act = gate(call, class, changes); \
    if (act == FAIL) return -1;

int mkdir(const char *given, mode_t mode) {
    ON_PATH("mkdir", AT_FDCWD, given, 1)
    return done(act, "mkdir", class, syscall(SYS_mkdirat, AT_FDCWD, given, mode), 0, path, "");
}

static int unlink_at(int dir, const char *given, int flags) {
    ON_PATH("unlink", dir, given, lasting != ENOSPC)
    return done(act, "unlink", class, syscall(SYS_unlinkat, dir, given, flags), 0, path, "");
}

int unlink(const char *path) { return unlink_at(AT_FDCWD, path, 0); }
int unlinkat(int dir, const char *path, int flags) { return unlink_at(dir, path, flags); }
int rmdir(const char *path) { return unlink_at(AT_FDCWD, path, AT_REMOVEDIR); }

int renameat(int dir, const char *given, int into, const char *second) {
    ON_PATH("rename", dir, given, 1)
    return done(act, "rename", class, syscall(SYS_renameat2, dir, given, into, second, 0), 0, path, second);
}

int rename(const char *path, const char *second) { return renameat(AT_FDCWD, path, AT_FDCWD, second); }

int chmod(const char *given, mode_t mode) {
    ON_PATH("chmod", AT_FDCWD, given, 1)
    return done(act, "chmod", class, syscall(SYS_fchmodat, AT_FDCWD, given, mode), 0, path, "");
}

int statx(int dir, const char *given, int flags, unsigned mask, struct statx *out) {
    /* Rust asks in this way whether there is such a call. */
    const char *volatile asked = given; /* the header says that it is never NULL, and the compiler believes it */
    if (!asked) return syscall(SYS_statx, dir, given, flags, mask, out);
    char held[PATH_MAX];
    ON_PATH("stat", dir, given[0] ? given : path_of(dir, held), 0)
    return done(act, "stat", class, syscall(SYS_statx, dir, given, flags, mask, out), 0, path, "");
}

int bind(int fd, const struct sockaddr *address, socklen_t length) {
    const char *given = address->sa_family == AF_UNIX ? ((const struct sockaddr_un *)address)->sun_path : "";
    ON_PATH("bind", AT_FDCWD, given, 1)
    return done(act, "bind", class, syscall(SYS_bind, fd, address, length), 0, path, "");
}

DIR *opendir(const char *path) {
    const char *class = class_of(path);
    enum act act = gate("list", class, 0);
    if (act == FAIL) return NULL;
    DIR *dir = list(path);
    done(act, "list", class, dir ? 0 : -1, 0, path, "");
    return dir;
}
