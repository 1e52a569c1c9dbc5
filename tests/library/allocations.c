/* Counts what is asked of the system's memory while frames go by: PROGRAM WIDTH HEIGHT THREADS FRAMES. Prints how often
 * until the first frame was done, and how often after it. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <unrain.h>

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

static long calls;

#define COUNT() __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED)

void *malloc(size_t size) { return COUNT(), __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return COUNT(), __libc_calloc(count, size); }
void *realloc(void *block, size_t size) { return COUNT(), __libc_realloc(block, size); }
void *aligned_alloc(size_t alignment, size_t size) { return COUNT(), __libc_memalign(alignment, size); }
void free(void *block) { COUNT(), __libc_free(block); }
int posix_memalign(void **block, size_t alignment, size_t size) {
    COUNT();
    *block = __libc_memalign(alignment, size);
    return *block == NULL;
}
void *mmap(void *at, size_t size, int protection, int flags, int file, off_t offset) {
    COUNT();
    return (void *)syscall(SYS_mmap, at, size, protection, flags, file, offset);
}

int main(int count, char **words) {
    char message[256];
    unrain_program *program = unrain_program_open(words[1], message, sizeof message);
    unrain_options options = unrain_default_options(atoi(words[2]), atoi(words[3]));
    const size_t luma = (size_t)(options.width * options.height);
    unsigned char *bytes = malloc(2 * luma);
    unrain_context *context;
    unrain_frame frame = {{bytes, bytes + luma}, {options.width, options.width}};
    const int frames = atoi(words[5]);
    long before = 0;
    int k;
    options.threads = atoi(words[4]);
    options.input = options.output = UNRAIN_NV12;
    context = program == NULL ? NULL : unrain_context_open(program, &options, message, sizeof message);
    if (count != 6 || context == NULL) return fprintf(stderr, "%s\n", message), 2;
    memset(bytes, 90, 2 * luma);
    for (k = 0; k < frames; ++k) {
        if (unrain_process(context, &frame, &frame) != UNRAIN_OK) return 3;
        if (k == 0) before = calls;
    }
    {
        const long after = calls - before; /* printf allocates, too */
        printf("%ld %ld\n", before, after);
    }
    unrain_context_close(context);
    unrain_program_close(program);
    free(bytes);
    return 0;
}
