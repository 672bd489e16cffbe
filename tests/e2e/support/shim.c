/* Stands between a process and the names and syncs of its files: LD_PRELOAD.
 *
 * TRACELAKE_SHIM_LOG    file that each call below TRACELAKE_SHIM_ROOT is appended to once it succeeded:
 *                       one line "call\tpath[\tother path][\t#copy]".
 * TRACELAKE_SHIM_ROOT   folder that the calls count for; others are left alone.
 * TRACELAKE_SHIM_COPIES folder that keeps, under a number, each file whose name goes away or over which
 *                       another one is renamed, so that a power cut can bring it back.
 * TRACELAKE_SHIM_POINT  "CALL\tPATTERN\tNUMBER\tWHAT": at the NUMBERth CALL whose path below the root
 *                       matches PATTERN (fnmatch): `fail` gives EIO and does nothing, `before` and `after`
 *                       kill the process there, `late` lets the call take effect and gives EIO.
 * TRACELAKE_SHIM_AFTER  "CALL\tPATTERN\tNUMBER": calls count for the point once that one was made.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int log_file = -1;
static char root[PATH_MAX], copies[PATH_MAX];
static size_t root_length;
static char point_call[32], point_pattern[PATH_MAX], point_what[16];
static long point_left;
static char after_call[32], after_pattern[PATH_MAX];
static long after_left;
static long next_copy;

static void start(void) {
  const char *log = getenv("TRACELAKE_SHIM_LOG"), *below = getenv("TRACELAKE_SHIM_ROOT");
  const char *keep = getenv("TRACELAKE_SHIM_COPIES"), *point = getenv("TRACELAKE_SHIM_POINT");
  if (!log || !below || !keep) return;
  snprintf(root, sizeof root, "%s", below);
  root_length = strlen(root);
  snprintf(copies, sizeof copies, "%s", keep);
  next_copy = (long)getpid() * 1000000;
  log_file = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  const char *after = getenv("TRACELAKE_SHIM_AFTER");
  if (after) sscanf(after, "%31[^\t]\t%4095[^\t]\t%ld", after_call, after_pattern, &after_left);
  if (point)
    sscanf(point, "%31[^\t]\t%4095[^\t]\t%ld\t%15s", point_call, point_pattern, &point_left, point_what);
}

/* The path without what is above the root; NULL when it is elsewhere. */
static const char *below(const char *path) {
  if (log_file < 0 || strncmp(path, root, root_length)) return NULL;
  if (path[root_length] == 0) return ".";
  return path[root_length] == '/' ? path + root_length + 1 : NULL;
}

static void absolute(int folder, const char *path, char *out) {
  if (path[0] == '/') {
    snprintf(out, PATH_MAX, "%s", path);
    return;
  }
  char above[PATH_MAX] = "";
  if (folder == AT_FDCWD) {
    if (!getcwd(above, sizeof above)) above[0] = 0;
  } else {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, above, sizeof above - 1);
    above[length < 0 ? 0 : length] = 0;
  }
  size_t length = strlen(above);
  if (length + strlen(path) + 2 > PATH_MAX) length = 0;
  memmove(out, above, length);
  snprintf(out + length, PATH_MAX - length, "/%s", path);
}

static void note(const char *call, const char *one, const char *other, long copy) {
  char line[2 * PATH_MAX + 64];
  int length = snprintf(line, sizeof line, "%s\t%s", call, one);
  if (other) length += snprintf(line + length, sizeof line - (size_t)length, "\t%s", other);
  if (copy) length += snprintf(line + length, sizeof line - (size_t)length, "\t#%ld", copy);
  line[length++] = '\n';
  if (write(log_file, line, (size_t)length) != length) abort();
}

static void end(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

enum what { NOTHING, FAIL, AFTER, LATE };

/* What befalls this call; to be asked with the mutex held. */
static enum what befall(const char *call, const char *path) {
  if (after_left > 0) {
    if (!strcmp(call, after_call) && !fnmatch(after_pattern, path, 0)) --after_left;
    return NOTHING;
  }
  if (point_left <= 0 || strcmp(call, point_call) || fnmatch(point_pattern, path, 0)) return NOTHING;
  if (--point_left > 0) return NOTHING;
  note("point", path, NULL, 0);
  if (!strcmp(point_what, "before")) end();
  if (!strcmp(point_what, "after")) return AFTER;
  return !strcmp(point_what, "late") ? LATE : FAIL;
}

/* Keeps a file whose name is about to go away; 0 when there is none. */
static long keep(const char *path) {
  char copy[PATH_MAX + 32];
  long number = ++next_copy;
  snprintf(copy, sizeof copy, "%s/%ld", copies, number);
  return syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, copy, 0) ? 0 : number;
}

/* The end of a call: with the mutex held, which it gives back. */
static int done(const char *call, long result, enum what what, const char *one, const char *other, long copy) {
  int error = errno;
  if (result == 0) note(call, one, other, copy);
  if (what == AFTER) end();
  pthread_mutex_unlock(&mutex);
  errno = what == LATE ? EIO : error;
  return what == LATE ? -1 : (int)result;
}

static int failed(void) {
  pthread_mutex_unlock(&mutex);
  errno = EIO;
  return -1;
}

static int sync_fd(const char *call, long number, int fd) {
  pthread_once(&once, start);
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = log_file < 0 ? -1 : readlink(link, path, sizeof path - 1);
  path[length < 0 ? 0 : length] = 0;
  const char *name = below(path);
  if (!name) return (int)syscall(number, fd);
  pthread_mutex_lock(&mutex);
  enum what what = befall(call, name);
  if (what == FAIL) return failed();
  return done(call, syscall(number, fd), what, name, NULL, 0);
}

int fsync(int fd) { return sync_fd("sync", SYS_fsync, fd); }
int fdatasync(int fd) { return sync_fd("sync", SYS_fdatasync, fd); }

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
  pthread_once(&once, start);
  char one[PATH_MAX], other[PATH_MAX];
  absolute(from_folder, from, one);
  absolute(to_folder, to, other);
  const char *old = below(one), *name = below(other);
  if (!name || !old) return (int)syscall(SYS_linkat, from_folder, from, to_folder, to, flags);
  pthread_mutex_lock(&mutex);
  enum what what = befall("link", name);
  if (what == FAIL) return failed();
  long result = syscall(SYS_linkat, from_folder, from, to_folder, to, flags);
  return done("link", result, what, old, name, 0);
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
  pthread_once(&once, start);
  char one[PATH_MAX], other[PATH_MAX];
  absolute(from_folder, from, one);
  absolute(to_folder, to, other);
  const char *old = below(one), *name = below(other);
  if (!name || !old) return (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
  pthread_mutex_lock(&mutex);
  enum what what = befall("rename", name);
  if (what == FAIL) return failed();
  long copy = keep(other);
  long result = syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
  return done("rename", result, what, old, name, copy);
}
int renameat(int from_folder, const char *from, int to_folder, const char *to) {
  return renameat2(from_folder, from, to_folder, to, 0);
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int folder, const char *path, int flags) {
  pthread_once(&once, start);
  char whole[PATH_MAX];
  absolute(folder, path, whole);
  const char *name = below(whole);
  if (!name || flags) return (int)syscall(SYS_unlinkat, folder, path, flags);
  pthread_mutex_lock(&mutex);
  enum what what = befall("unlink", name);
  if (what == FAIL) return failed();
  long copy = keep(whole);
  return done("unlink", syscall(SYS_unlinkat, folder, path, 0), what, name, NULL, copy);
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

int mkdirat(int folder, const char *path, mode_t mode) {
  pthread_once(&once, start);
  char whole[PATH_MAX];
  absolute(folder, path, whole);
  const char *name = below(whole);
  if (!name) return (int)syscall(SYS_mkdirat, folder, path, mode);
  pthread_mutex_lock(&mutex);
  enum what what = befall("mkdir", name);
  if (what == FAIL) return failed();
  return done("mkdir", syscall(SYS_mkdirat, folder, path, mode), what, name, NULL, 0);
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

/* Only whether a file is made matters of an open. */
static int open_file(int folder, const char *path, int flags, mode_t mode) {
  pthread_once(&once, start);
  char whole[PATH_MAX];
  const char *name = NULL;
  if (log_file >= 0 && (flags & O_CREAT)) {
    absolute(folder, path, whole);
    name = below(whole);
  }
  if (!name) return (int)syscall(SYS_openat, folder, path, flags, mode);
  pthread_mutex_lock(&mutex);
  struct stat known;
  int is_there = syscall(SYS_newfstatat, folder, path, &known, AT_SYMLINK_NOFOLLOW) == 0;
  enum what what = is_there ? NOTHING : befall("create", name);
  if (what == FAIL) return failed();
  int fd = (int)syscall(SYS_openat, folder, path, flags, mode);
  int error = errno;
  if (fd >= 0 && !is_there) note("create", name, NULL, 0);
  if (what == AFTER) end();
  pthread_mutex_unlock(&mutex);
  errno = error;
  return fd;
}

static mode_t mode_of(int flags, va_list arguments) {
  return flags & (O_CREAT | O_TMPFILE) ? (mode_t)va_arg(arguments, int) : 0;
}
#define OPEN(name, large)                                             \
  int name(const char *path, int flags, ...) {                        \
    va_list arguments;                                                \
    va_start(arguments, flags);                                       \
    mode_t mode = mode_of(flags, arguments);                          \
    va_end(arguments);                                                \
    return open_file(AT_FDCWD, path, flags | (large), mode);          \
  }
#define OPENAT(name, large)                                           \
  int name(int folder, const char *path, int flags, ...) {            \
    va_list arguments;                                                \
    va_start(arguments, flags);                                       \
    mode_t mode = mode_of(flags, arguments);                          \
    va_end(arguments);                                                \
    return open_file(folder, path, flags | (large), mode);            \
  }
OPEN(open, 0)
OPEN(open64, O_LARGEFILE)
OPENAT(openat, 0)
OPENAT(openat64, O_LARGEFILE)
