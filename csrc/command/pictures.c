/* Binary PPM files of 8 bits per channel. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"

/* The next number of a header, or -1; the one character behind it is read, too. */
static int next_number(FILE *file) {
    int c = fgetc(file), number = 0, digits = 0;
    while (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '#') {
        if (c == '#') {
            while (c != '\n' && c != EOF) c = fgetc(file);
        }
        c = fgetc(file);
    }
    while (c >= '0' && c <= '9' && digits < 6) {
        number = 10 * number + (c - '0');
        ++digits;
        c = fgetc(file);
    }
    return digits > 0 ? number : -1;
}

static const char *read_header(FILE *file, picture *to) {
    if (fgetc(file) != 'P' || fgetc(file) != '6') return "is no binary PPM";
    to->width = next_number(file);
    to->height = next_number(file);
    if (to->width < 1 || to->height < 1 || to->width > 65536 || to->height > 65536) return "has no size";
    return next_number(file) == 255 ? NULL : "does not have 8 bits per channel";
}

const char *read_ppm(const char *path, picture *to) {
    FILE *file = fopen(path, "rb");
    const char *wrong;
    size_t size;
    to->pixels = NULL;
    if (file == NULL) return "cannot be opened";
    wrong = read_header(file, to);
    if (wrong == NULL) {
        size = 3 * (size_t)to->width * (size_t)to->height;
        to->pixels = malloc(size);
        if (to->pixels == NULL) {
            wrong = "is too large for the memory";
        } else if (fread(to->pixels, 1, size, file) != size) {
            wrong = "breaks off";
        }
    }
    fclose(file);
    return wrong;
}

const char *write_ppm(const char *path, const picture *from) {
    static const char ending[] = ".unrain-new";
    const size_t size = 3 * (size_t)from->width * (size_t)from->height;
    char *staged = malloc(strlen(path) + sizeof ending);
    const char *wrong = "cannot be written";
    FILE *file;
    int whole;
    if (staged == NULL) return "is too large for the memory";
    strcpy(staged, path);
    strcat(staged, ending);
    file = fopen(staged, "wb");
    if (file != NULL) {
        whole = fprintf(file, "P6\n%d %d\n255\n", from->width, from->height) > 0;
        whole = fwrite(from->pixels, 1, size, file) == size && whole;
        whole = fclose(file) == 0 && whole;
        if (whole && rename(staged, path) == 0) {
            wrong = NULL;
        } else {
            remove(staged);
        }
    }
    free(staged);
    return wrong;
}
