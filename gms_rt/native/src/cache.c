/* Compiled graphs, kept in a folder of the user's own so that the next open of the same graph is faster.
 *
 * One file each, named by a key: a hash of everything that the result depends on. It holds its own SHA-256, which is
 * compared before OpenVINO sees a byte, and the very bytes that were compared are the ones that are used; what does not
 * match, or what OpenVINO refuses, is deleted, and the graph is compiled as if nothing had been there. OpenVINO writes
 * to memory, never to the disk: it does not notice a full disk. Nothing here makes an open fail. */
#if defined(__linux__)
#define _GNU_SOURCE /* syscall, sched_getaffinity */
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#endif

#include "openvino.h"

#define MAX_BYTES ((off_t)2 << 30) /* of all files together; the ones not used for longest go first */
#define MAX_PART_AGE 3600          /* seconds, after which a file that is not finished belongs to nobody any more */
#define NAME_LENGTH (64 + 5)       /* the key and ".blob" */

static const char magic[16] = "gms-rt blob 001";

/* The start of a file; what OpenVINO wrote follows. */
typedef struct head {
    char magic[16];
    char hex[64]; /* SHA-256 of all that follows */
    char key[64];
    uint32_t batch, height, width, reserved;
} head;

#define HASHED_FROM offsetof(head, key)

static void hash(const void *after_hex, size_t head_size, const void *blob, size_t size, char hex[65])
{
    gmsrt_sha256_state sum;

    gmsrt_sha256_start(&sum);
    gmsrt_sha256_add(&sum, after_hex, head_size);
    gmsrt_sha256_add(&sum, blob, size);
    gmsrt_sha256_end(&sum, hex);
}

static void add_text(gmsrt_sha256_state *sum, const char *text)
{
    gmsrt_sha256_add(sum, text, strlen(text) + 1);
}

/* The instructions that the processor offers here, and how many of its cores may be used. */
static void add_processor(gmsrt_sha256_state *sum)
{
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[16384];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, "flags", 5) == 0 || strncmp(line, "Features", 8) == 0) {
            add_text(sum, line);
            break;
        }
    if (file != NULL) fclose(file);
#if defined(__linux__)
    {
        cpu_set_t set;

        if (sched_getaffinity(0, sizeof set, &set) == 0) gmsrt_sha256_add(sum, &set, sizeof set);
    }
#endif
    gmsrt_sha256_add(sum, &cores, sizeof cores);
}

void gmsrt_cache_open(gmsrt_cache *cache, const char *path, gmsrt_files *files, const gmsrt_cpu_options *options,
                      const gmsrt_info *info, const char *abilities)
{
    const uint32_t numbers[] = {GMSRT_ABI_VERSION,       (uint32_t)sizeof(void *), (uint32_t)options->precision,
                                (uint32_t)options->mode, options->threads,         options->lanes,
                                options->batch};
    gmsrt_sha256_state sum;

    cache->folder = -1;
    /* A trial that is wanted every time is a doubt about what is remembered, too. */
    if (options->cache == NULL || options->trial == GMSRT_TRIAL_ALWAYS || info->runtime[0] == '\0') return;
    if (gmsrt_files_hash(files, path) != GMSRT_OK) return;
    gmsrt_sha256_start(&sum);
    gmsrt_sha256_add(&sum, magic, sizeof magic);
    gmsrt_sha256_add(&sum, numbers, sizeof numbers);
    add_text(&sum, info->runtime);
    add_text(&sum, info->device);
    add_text(&sum, abilities);
    add_processor(&sum);
    for (size_t i = 0; i < files->count; i++) gmsrt_sha256_add(&sum, files->items[i].hex, 64);
    gmsrt_sha256_end(&sum, cache->key);
    cache->folder = open(options->cache, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (cache->folder >= 0 && !gmsrt_is_own(cache->folder)) {
        gmsrt_log(GMSRT_LOG_WARNING, "the cache %s is not used: others than you can write there", options->cache);
        gmsrt_cache_close(cache);
    }
}

void gmsrt_cache_close(gmsrt_cache *cache)
{
    if (cache->folder >= 0) close(cache->folder);
    cache->folder = -1;
}

static void name_of(const gmsrt_cache *cache, char name[NAME_LENGTH + 1])
{
    snprintf(name, NAME_LENGTH + 1, "%s.blob", cache->key);
}

static bool read_all(int file, char *to, size_t size)
{
    while (size > 0) {
        const ssize_t got = read(file, to, size);

        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        to += got;
        size -= (size_t)got;
    }
    return true;
}

static bool write_all(int file, const char *from, size_t size)
{
    while (size > 0) {
        const ssize_t done = write(file, from, size);

        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return false;
        from += done;
        size -= (size_t)done;
    }
    return true;
}

static bool is_whole(const head *start, const char *key, const char *blob, size_t size)
{
    char hex[65];

    if (memcmp(start->magic, magic, sizeof magic) != 0 || memcmp(start->key, key, 64) != 0) return false;
    hash((const char *)start + HASHED_FROM, sizeof *start - HASHED_FROM, blob, size, hex);
    return memcmp(start->hex, hex, 64) == 0;
}

ov_compiled_model_t *gmsrt_cache_find(const gmsrt_cache *cache, const gmsrt_openvino *ov, const ov_core_t *core,
                                      gmsrt_info *info, void **blob)
{
    ov_compiled_model_t *compiled = NULL;
    char name[NAME_LENGTH + 1];
    struct stat about;
    char *all = NULL;
    head start;
    int file;

    *blob = NULL;
    if (cache->folder < 0) return NULL;
    name_of(cache, name);
    file = openat(cache->folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) return NULL;
    if (fstat(file, &about) == 0 && S_ISREG(about.st_mode) && gmsrt_is_own(file) &&
        about.st_size > (off_t)sizeof start && about.st_size <= MAX_BYTES) {
        const size_t size = (size_t)about.st_size - sizeof start;

        all = malloc(size);
        if (all == NULL) {
            close(file);
            return NULL;
        }
        if (read_all(file, (char *)&start, sizeof start) && read_all(file, all, size) &&
            is_whole(&start, cache->key, all, size) && gmsrt_shape_is_sane(start.batch, start.height, start.width) &&
            ov->ov_core_import_model(core, all, size, "CPU", &compiled) != 0)
            compiled = NULL;
    }
    if (compiled != NULL) {
        futimens(file, NULL); /* used just now */
        info->batch = start.batch;
        info->height = start.height;
        info->width = start.width;
    } else {
        gmsrt_log(GMSRT_LOG_WARNING, "a compiled graph in the cache was damaged or not usable: it is deleted (%s)",
                  name);
        unlinkat(cache->folder, name, 0);
    }
    close(file);
    if (compiled == NULL) {
        free(all);
        all = NULL;
    }
    *blob = all;
    return compiled;
}

/* What OpenVINO exports, mapped; NULL if it cannot be had. */
static void *export_blob(const gmsrt_openvino *ov, const ov_compiled_model_t *compiled, size_t *size)
{
#if defined(__linux__) && defined(SYS_memfd_create)
    const int file = (int)syscall(SYS_memfd_create, "gms-rt", 1u /* MFD_CLOEXEC */);
    void *blob = MAP_FAILED;
    struct stat about;
    char path[40];

    if (file < 0) return NULL;
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    if (ov->ov_compiled_model_export_model(compiled, path) == 0 && fstat(file, &about) == 0 && about.st_size > 0 &&
        about.st_size <= MAX_BYTES - (off_t)sizeof(head)) {
        *size = (size_t)about.st_size;
        blob = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, file, 0);
    }
    close(file);
    return blob != MAP_FAILED ? blob : NULL;
#else
    (void)ov;
    (void)compiled;
    (void)size;
    return NULL;
#endif
}

/* Make room: parts that nobody finishes, then the files that were not used for longest. */
static void clear_old(int folder)
{
    const time_t now = time(NULL);

    for (;;) {
        char oldest[NAME_LENGTH + 1] = "";
        struct timespec when = {0, 0};
        off_t total = 0;
        const struct dirent *entry;
        const int again = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *list = again >= 0 ? fdopendir(again) : NULL;

        if (list == NULL) {
            if (again >= 0) close(again);
            return;
        }
        while ((entry = readdir(list)) != NULL) {
            struct stat about;

            if (fstatat(folder, entry->d_name, &about, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(about.st_mode)) continue;
            if (strncmp(entry->d_name, ".part-", 6) == 0) {
                if (now - about.st_mtime > MAX_PART_AGE) unlinkat(folder, entry->d_name, 0);
                continue;
            }
            if (strlen(entry->d_name) != NAME_LENGTH || strcmp(entry->d_name + 64, ".blob") != 0) continue;
            total += about.st_size;
            if (oldest[0] == '\0' || about.st_mtim.tv_sec < when.tv_sec ||
                (about.st_mtim.tv_sec == when.tv_sec && about.st_mtim.tv_nsec < when.tv_nsec)) {
                strcpy(oldest, entry->d_name);
                when = about.st_mtim;
            }
        }
        closedir(list);
        if (total <= MAX_BYTES || unlinkat(folder, oldest, 0) != 0) return;
    }
}

void gmsrt_cache_keep(const gmsrt_cache *cache, const gmsrt_openvino *ov, const ov_compiled_model_t *compiled,
                      const char *path, const gmsrt_files *files, const gmsrt_info *info)
{
    static unsigned turn;
    char name[NAME_LENGTH + 1], part[64], hex[65];
    struct rlimit limit;
    size_t size = 0;
    void *blob;
    head start;
    int file;

    if (cache->folder < 0) return;
    /* Writing beyond a limit of the process would end it with a signal. */
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur != RLIM_INFINITY) return;
    blob = export_blob(ov, compiled, &size);
    if (blob == NULL) return;
    memset(&start, 0, sizeof start);
    memcpy(start.magic, magic, sizeof magic);
    memcpy(start.key, cache->key, 64);
    start.batch = info->batch;
    start.height = info->height;
    start.width = info->width;
    hash((const char *)&start + HASHED_FROM, sizeof start - HASHED_FROM, blob, size, hex);
    memcpy(start.hex, hex, 64);
    snprintf(part, sizeof part, ".part-%ld-%u-%.16s", (long)getpid(), __sync_add_and_fetch(&turn, 1), cache->key);
    file = gmsrt_files_same(files, path) == GMSRT_OK
               ? openat(cache->folder, part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600)
               : -1;
    if (file >= 0) {
        bool written = write_all(file, (const char *)&start, sizeof start) && write_all(file, blob, size);

        written = close(file) == 0 && written;
        name_of(cache, name);
        if (!written || renameat(cache->folder, part, cache->folder, name) != 0) unlinkat(cache->folder, part, 0);
        clear_old(cache->folder);
    }
    munmap(blob, size);
}
