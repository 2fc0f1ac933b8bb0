/* Makes file-system calls below one folder fail, or kills the process group at one of them.
 *
 * Loaded with LD_PRELOAD into a process and all that it starts. The control block is a file that every
 * one of them maps: calls are counted over the whole process tree. Reads and writes of other folders
 * pass untouched, and are not counted.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* tests/faults/injection.py packs it: the order and the sizes are the same there. */
struct control {
    int64_t armed;   /* 0: pass everything */
    int64_t count;   /* calls so far */
    int64_t at;      /* the call that fails, from 1; 0: none, only count */
    int64_t error;   /* errno; 0: kill the process group */
    int64_t onwards; /* later calls fail as well */
    int64_t hit;     /* whether a call has failed */
    char root[512];  /* calls below this folder count */
    char log[512];   /* "": no log; else a line for each call is appended to this file */
};

static struct control *control;

__attribute__((constructor)) static void map_control(void) {
    const char *path = getenv("TUMORBATCH_FAULTS");
    if (!path) return;
    int file = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    if (file < 0) return;
    void *block = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (block != MAP_FAILED) control = block;
    syscall(SYS_close, file);
}

static int below_root(const char *path) {
    size_t length = strlen(control->root);
    return !strncmp(path, control->root, length) && (path[length] == '/' || !path[length]);
}

/* The absolute path that (folder, path) means; no links are resolved. */
static int absolute(int folder, const char *path, char *full, size_t size) {
    char base[PATH_MAX];
    if (path && path[0] == '/') return snprintf(full, size, "%s", path) < (int)size;
    if (folder == AT_FDCWD) {
        if (syscall(SYS_getcwd, base, sizeof base) < 0) return 0;
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, base, sizeof base - 1);
        if (length < 0) return 0;
        base[length] = 0;
    }
    if (!path || !path[0]) return snprintf(full, size, "%s", base) < (int)size;
    return snprintf(full, size, "%s/%s", base, path) < (int)size;
}

static void record(const char *name, int changes, const char *full) {
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%s %s %s\n", name, changes ? "changes" : "reads", full);
    int file = syscall(SYS_openat, AT_FDCWD, control->log, O_WRONLY | O_APPEND | O_CLOEXEC, 0);
    if (file < 0) return;
    syscall(SYS_write, file, line, length);
    syscall(SYS_close, file);
}

/* The errno with which this call shall fail, or 0. */
static int fault(const char *name, int changes, int folder, const char *path) {
    char full[PATH_MAX];
    if (!control || !control->armed || !absolute(folder, path, full, sizeof full) || !below_root(full))
        return 0;
    int64_t number = __atomic_add_fetch(&control->count, 1, __ATOMIC_SEQ_CST);
    if (control->log[0]) record(name, changes, full);
    if (!control->at || number < control->at || (number > control->at && !control->onwards)) return 0;
    if (!control->error) {
        control->hit = 1;
        kill(0, SIGKILL);
        for (;;) pause();
    }
    if (!changes && control->error != EIO) return 0; /* a full or read-only disk can be read */
    control->hit = 1;
    return (int)control->error;
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define FAIL(changes, folder, path, result)                     \
    do {                                                        \
        int error = fault(__func__, changes, folder, path);     \
        if (error) { errno = error; return result; }            \
    } while (0)

#define CHANGES(flags) (((flags) & (O_CREAT | O_TRUNC)) || ((flags) & O_ACCMODE) != O_RDONLY)
#define MODE(flags, mode)                                                   \
    mode_t mode = 0;                                                        \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                  \
        va_list rest; va_start(rest, flags); mode = va_arg(rest, int); va_end(rest); \
    }

int open(const char *path, int flags, ...) { MODE(flags, mode) REAL(open); FAIL(CHANGES(flags), AT_FDCWD, path, -1); return real(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, mode) REAL(open64); FAIL(CHANGES(flags), AT_FDCWD, path, -1); return real(path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE(flags, mode) REAL(openat); FAIL(CHANGES(flags), folder, path, -1); return real(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE(flags, mode) REAL(openat64); FAIL(CHANGES(flags), folder, path, -1); return real(folder, path, flags, mode); }
FILE *fopen(const char *path, const char *mode) { REAL(fopen); FAIL(mode[0] != 'r' || strchr(mode, '+') != NULL, AT_FDCWD, path, NULL); return real(path, mode); }
FILE *fopen64(const char *path, const char *mode) { REAL(fopen64); FAIL(mode[0] != 'r' || strchr(mode, '+') != NULL, AT_FDCWD, path, NULL); return real(path, mode); }
size_t fwrite(const void *data, size_t size, size_t n, FILE *file) { REAL(fwrite); FAIL(1, fileno(file), NULL, 0); return real(data, size, n, file); }
int fflush(FILE *file) { REAL(fflush); if (file) FAIL(1, fileno(file), NULL, EOF); return real(file); }
ssize_t read(int file, void *data, size_t size) { REAL(read); FAIL(0, file, NULL, -1); return real(file, data, size); }
ssize_t pread(int file, void *data, size_t size, off_t at) { REAL(pread); FAIL(0, file, NULL, -1); return real(file, data, size, at); }
ssize_t pread64(int file, void *data, size_t size, off64_t at) { REAL(pread64); FAIL(0, file, NULL, -1); return real(file, data, size, at); }
ssize_t write(int file, const void *data, size_t size) { REAL(write); FAIL(1, file, NULL, -1); return real(file, data, size); }
ssize_t pwrite(int file, const void *data, size_t size, off_t at) { REAL(pwrite); FAIL(1, file, NULL, -1); return real(file, data, size, at); }
ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) { REAL(pwrite64); FAIL(1, file, NULL, -1); return real(file, data, size, at); }
ssize_t writev(int file, const struct iovec *parts, int n) { REAL(writev); FAIL(1, file, NULL, -1); return real(file, parts, n); }
int fsync(int file) { REAL(fsync); FAIL(1, file, NULL, -1); return real(file); }
int fdatasync(int file) { REAL(fdatasync); FAIL(1, file, NULL, -1); return real(file); }
int ftruncate(int file, off_t size) { REAL(ftruncate); FAIL(1, file, NULL, -1); return real(file, size); }
int ftruncate64(int file, off64_t size) { REAL(ftruncate64); FAIL(1, file, NULL, -1); return real(file, size); }
int truncate(const char *path, off_t size) { REAL(truncate); FAIL(1, AT_FDCWD, path, -1); return real(path, size); }
int truncate64(const char *path, off64_t size) { REAL(truncate64); FAIL(1, AT_FDCWD, path, -1); return real(path, size); }
int rename(const char *from, const char *to) { REAL(rename); FAIL(1, AT_FDCWD, to, -1); return real(from, to); }
int renameat(int source, const char *from, int folder, const char *to) { REAL(renameat); FAIL(1, folder, to, -1); return real(source, from, folder, to); }
int renameat2(int source, const char *from, int folder, const char *to, unsigned flags) { REAL(renameat2); FAIL(1, folder, to, -1); return real(source, from, folder, to, flags); }
int unlink(const char *path) { REAL(unlink); FAIL(1, AT_FDCWD, path, -1); return real(path); }
int unlinkat(int folder, const char *path, int flags) { REAL(unlinkat); FAIL(1, folder, path, -1); return real(folder, path, flags); }
int rmdir(const char *path) { REAL(rmdir); FAIL(1, AT_FDCWD, path, -1); return real(path); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); FAIL(1, AT_FDCWD, path, -1); return real(path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { REAL(mkdirat); FAIL(1, folder, path, -1); return real(folder, path, mode); }
int link(const char *from, const char *to) { REAL(link); FAIL(1, AT_FDCWD, to, -1); return real(from, to); }
int linkat(int source, const char *from, int folder, const char *to, int flags) { REAL(linkat); FAIL(1, folder, to, -1); return real(source, from, folder, to, flags); }
int chmod(const char *path, mode_t mode) { REAL(chmod); FAIL(1, AT_FDCWD, path, -1); return real(path, mode); }
int fchmod(int file, mode_t mode) { REAL(fchmod); FAIL(1, file, NULL, -1); return real(file, mode); }
int fchmodat(int folder, const char *path, mode_t mode, int flags) { REAL(fchmodat); FAIL(1, folder, path, -1); return real(folder, path, mode, flags); }
DIR *opendir(const char *path) { REAL(opendir); FAIL(0, AT_FDCWD, path, NULL); return real(path); }
DIR *fdopendir(int file) { REAL(fdopendir); FAIL(0, file, NULL, NULL); return real(file); }
int stat(const char *path, struct stat *info) { REAL(stat); FAIL(0, AT_FDCWD, path, -1); return real(path, info); }
int lstat(const char *path, struct stat *info) { REAL(lstat); FAIL(0, AT_FDCWD, path, -1); return real(path, info); }
int fstat(int file, struct stat *info) { REAL(fstat); FAIL(0, file, NULL, -1); return real(file, info); }
int fstatat(int folder, const char *path, struct stat *info, int flags) { REAL(fstatat); FAIL(0, folder, path, -1); return real(folder, path, info, flags); }
int stat64(const char *path, struct stat64 *info) { REAL(stat64); FAIL(0, AT_FDCWD, path, -1); return real(path, info); }
int lstat64(const char *path, struct stat64 *info) { REAL(lstat64); FAIL(0, AT_FDCWD, path, -1); return real(path, info); }
int fstat64(int file, struct stat64 *info) { REAL(fstat64); FAIL(0, file, NULL, -1); return real(file, info); }
int fstatat64(int folder, const char *path, struct stat64 *info, int flags) { REAL(fstatat64); FAIL(0, folder, path, -1); return real(folder, path, info, flags); }
