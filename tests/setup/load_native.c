/* The compiled library as Python's ctypes takes it, without Python: load_native LIBRARY. It finds an operation by its
 * description, runs it on every tier that this machine has, and compares with the formula. */
#include <dlfcn.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *name;
    size_t offset, count;
    int otherwise;
    char kind;
} field;
typedef struct {
    const char *name;
    const field *fields;
    size_t bytes;
    const char *(*call)(const void *arguments, int backward, const char *tier, ptrdiff_t *size);
} function;

enum { COUNT = 100003 };

static const function *find_function(const function *table, const char *name) {
    while (table->name && strcmp(table->name, name)) ++table;
    return table->name ? table : NULL;
}

static void set(const function *f, unsigned char *arguments, const char *name, const void *value, size_t size) {
    for (const field *each = f->fields; each->name; ++each)
        if (!strcmp(each->name, name)) memcpy(arguments + each->offset, value, size);
}

int main(int argc, char **argv) {
    static float pred[COUNT], target[COUNT];
    double expected = 0;
    void *library = argc == 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
    if (!library) return fprintf(stderr, "%s\n", argc == 2 ? dlerror() : "load_native LIBRARY"), 2;
    const function *(*ops)(void) = (const function *(*)(void))dlsym(library, "unrain_native_ops");
    const char *(*tier)(int) = (const char *(*)(int))dlsym(library, "unrain_native_tier");
    const function *f = ops && tier ? find_function(ops(), "charbonnier") : NULL;
    if (!f) return fprintf(stderr, "it does not describe charbonnier\n"), 2;
    for (int k = 0; k < COUNT; ++k) {
        pred[k] = (float)(k % 251) / 251, target[k] = (float)(k % 13) / 13;
        expected += sqrt(pow((double)pred[k] - target[k], 2) + 1e-6) / COUNT;
    }
    for (int number = 0; tier(number); ++number) {
        const float *from[] = {pred, target};
        float eps = 1e-3f, loss = 0, *to = &loss;
        ptrdiff_t count = COUNT;
        int mean = 2, threads = 2;
        unsigned char *arguments = calloc(1, f->bytes);
        set(f, arguments, "pred", &from[0], sizeof from[0]);
        set(f, arguments, "target", &from[1], sizeof from[1]);
        set(f, arguments, "count", &count, sizeof count);
        set(f, arguments, "eps", &eps, sizeof eps);
        set(f, arguments, "reduction", &mean, sizeof mean);
        set(f, arguments, "loss", &to, sizeof to);
        set(f, arguments, "threads", &threads, sizeof threads);
        const char *wrong = f->call(arguments, 0, tier(number), NULL);
        free(arguments);
        if (wrong) return fprintf(stderr, "%s: %s\n", tier(number), wrong), 1;
        if (fabs(loss - expected) > 1e-6 * expected) return fprintf(stderr, "%s: %.9g\n", tier(number), loss), 1;
        printf("%s: %.9g, as it should be\n", tier(number), loss);
    }
    return 0;
}
