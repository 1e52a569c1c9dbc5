/* The command line of unrain-c. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"

static const char usage[] =
    "usage: unrain-c PROGRAM [OPTIONS] --size WxH        raw frames from stdin to stdout\n"
    "       unrain-c PROGRAM [OPTIONS] IN.ppm OUT.ppm [IN.ppm OUT.ppm ...]\n"
    "\n"
    "PROGRAM is a file that `unrain export --to program` wrote. All pictures have one size and are the frames of one\n"
    "camera, in their order.\n"
    "\n"
    "  --size WxH           of raw frames, like 1280x720\n"
    "  --pix-fmt FORMAT     of raw frames: rgb24 (as it is), bgr24, nv12\n"
    "  --out-pix-fmt FORMAT of those on stdout, where it is another one\n"
    "  --precision P        auto (as it is), fp32, bf16\n"
    "  --threads N          0 (as it is): the cores this process may use\n"
    "  --stages N           0 (as it is): the network's own number\n"
    "  --strength S         how much of the rain is taken out, from 0 to 1 (as it is)\n"
    "  --deadline MS        what a frame may take; none as it is\n"
    "  --no-carry           every frame stands alone\n"
    "  --quiet              no line at the end\n"
    "  --version, --help\n"
    "\n"
    "The exit code is 0 when every frame was derained, 1 when one was not, 2 for a wrong command line.\n";

static int wrong(const char *what, const char *word) {
    fprintf(stderr, "unrain-c: %s: %s (unrain-c --help)\n", what, word);
    return 2;
}

static int format_of(const char *word, unrain_format *to) {
    static const char *const names[] = {"rgb24", "bgr24", "nv12"};
    int k;
    for (k = 0; k < 3; ++k) {
        if (strcmp(word, names[k]) == 0) {
            *to = (unrain_format)k;
            return 1;
        }
    }
    return 0;
}

static int precision_of(const char *word, unrain_precision *to) {
    static const char *const names[] = {"auto", "fp32", "bf16", "int8"}; /* the last one: libunrain says why not */
    int k;
    for (k = 0; k < 4; ++k) {
        if (strcmp(word, names[k]) == 0) {
            *to = (unrain_precision)k;
            return 1;
        }
    }
    return 0;
}

static int number_of(const char *word, int *to) {
    char *end;
    long number;
    errno = 0;
    number = strtol(word, &end, 10);
    if (end == word || *end != '\0' || errno != 0 || number < 0 || number > INT_MAX) return 0;
    *to = (int)number;
    return 1;
}

static int fraction_of(const char *word, double *to) {
    char *end;
    *to = strtod(word, &end);
    return end != word && *end == '\0' && *to == *to;
}

static int size_of(const char *word, unrain_options *to) {
    char rest;
    return sscanf(word, "%6dx%6d%c", &to->width, &to->height, &rest) == 2;
}

/* 1 where the value was right, 0 where it was not, -1 where there is no such option. */
static int take(const char *name, const char *value, unrain_options *to, int *has_output) {
    double number;
    if (strcmp(name, "--size") == 0) return size_of(value, to);
    if (strcmp(name, "--pix-fmt") == 0) return format_of(value, &to->input);
    if (strcmp(name, "--out-pix-fmt") == 0) return *has_output = 1, format_of(value, &to->output);
    if (strcmp(name, "--precision") == 0) return precision_of(value, &to->precision);
    if (strcmp(name, "--threads") == 0) return number_of(value, &to->threads);
    if (strcmp(name, "--stages") == 0) return number_of(value, &to->stages);
    if (strcmp(name, "--strength") == 0) {
        if (!fraction_of(value, &number)) return 0;
        to->strength = (float)number;
        return 1;
    }
    if (strcmp(name, "--deadline") == 0) {
        if (!fraction_of(value, &number) || !(number > 0 && number < 1e9)) return 0;
        to->deadline_us = (long long)(number * 1000 + 0.5);
        return 1;
    }
    return -1;
}

int read_command_line(int count, char **words, command_line *to) {
    int k, taken, has_output = 0;
    memset(to, 0, sizeof *to);
    to->options = unrain_default_options(0, 0);
    for (k = 1; k < count; ++k) {
        const char *word = words[k];
        if (strcmp(word, "--help") == 0) {
            fputs(usage, stdout);
            exit(0);
        } else if (strcmp(word, "--version") == 0) {
            printf("unrain-c %s\n", unrain_version());
            exit(0);
        } else if (strcmp(word, "--no-carry") == 0) {
            to->options.carry = 0;
        } else if (strcmp(word, "--quiet") == 0) {
            to->quiet = 1;
        } else if (word[0] == '-' && word[1] != '\0') {
            if (k + 1 == count) return wrong("no such option, or its value is missing", word);
            taken = take(word, words[k + 1], &to->options, &has_output);
            if (taken < 0) return wrong("no such option", word);
            if (taken == 0) return wrong(word, words[k + 1]);
            ++k;
        } else if (to->program == NULL) {
            to->program = word;
        } else {
            to->first = to->count == 0 ? k : to->first;
            if (k != to->first + to->count) return wrong("options come before the pictures", word);
            ++to->count;
        }
    }
    if (!has_output) to->options.output = to->options.input;
    if (to->program == NULL) return fputs(usage, stderr), 2;
    if (to->count % 2 != 0) return wrong("a picture without a place for its result", words[to->first + to->count - 1]);
    if (to->count == 0 && to->options.width == 0) return wrong("raw frames need their size", "--size WxH");
    if (to->count > 0 && (to->options.width != 0 || to->options.input != UNRAIN_RGB8 || has_output)) {
        return wrong("only for raw frames", "--size, --pix-fmt");
    }
    return 0;
}
