/* The parts of unrain-c. */
#ifndef UNRAIN_COMMAND_H
#define UNRAIN_COMMAND_H

#include <unrain.h>

typedef struct {
    const char *program;
    unrain_options options; /* width 0: the pictures say */
    int first, count;       /* of the words: pictures, IN OUT IN OUT ...; none for raw frames */
    int quiet;
} command_line;

/* 0, or the exit code after a line was printed. */
int read_command_line(int count, char **words, command_line *to);

typedef struct {
    int width, height;
    unsigned char *pixels;
} picture;

/* NULL, or why not. */
const char *read_ppm(const char *path, picture *to);

/* Under a temporary name first: whole, or not at all. */
const char *write_ppm(const char *path, const picture *from);

#endif
