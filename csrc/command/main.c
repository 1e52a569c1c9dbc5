/* unrain-c: takes the rain out of raw frames in a pipe, or of PPM pictures, without Python. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"

static int failed(const char *what, const char *why) {
    fprintf(stderr, "unrain-c: %s: %s\n", what, why);
    return 1;
}

/* Each reason once in a row: a deadline that is always missed is one line. */
static int report(const unrain_context *context, unrain_outcome outcome, unsigned long long frame) {
    static const char *const names[] = {"OK", "LATE", "PASSTHROUGH", "REFUSED"};
    static char last[256];
    const char *reason = unrain_reason(context);
    if (outcome != UNRAIN_OK && strncmp(last, reason, sizeof last - 1) != 0) {
        fprintf(stderr, "unrain-c: frame %llu: %s: %s\n", frame, names[outcome], reason);
    }
    last[0] = '\0';
    strncat(last, reason, sizeof last - 1);
    return outcome != UNRAIN_OK;
}

/* Where the planes of a frame lie without gaps; returns its bytes. */
static size_t lay_out(unrain_frame *frame, unsigned char *bytes, unrain_format format, int width, int height) {
    const size_t w = (size_t)width, h = (size_t)height, pairs = (w + 1) / 2 * 2;
    memset(frame, 0, sizeof *frame);
    frame->data[0] = bytes;
    frame->stride[0] = (ptrdiff_t)(format == UNRAIN_NV12 ? w : 3 * w);
    if (format != UNRAIN_NV12) return 3 * w * h;
    frame->data[1] = bytes == NULL ? NULL : bytes + w * h;
    frame->stride[1] = (ptrdiff_t)pairs;
    return w * h + pairs * ((h + 1) / 2);
}

static int raw_frames(unrain_context *context, const unrain_options *o) {
    unrain_frame in, out;
    const size_t in_bytes = lay_out(&in, NULL, o->input, o->width, o->height);
    const size_t out_bytes = lay_out(&out, NULL, o->output, o->width, o->height);
    unsigned char *bytes = malloc(in_bytes + out_bytes);
    unsigned long long frame = 0;
    size_t got;
    int wrong = 0;
    if (bytes == NULL) return failed("frames", "they are too large for the memory");
    lay_out(&in, bytes, o->input, o->width, o->height);
    lay_out(&out, bytes + in_bytes, o->output, o->width, o->height);
    while ((got = fread(bytes, 1, in_bytes, stdin)) == in_bytes) {
        wrong |= report(context, unrain_process(context, &in, &out), ++frame);
        if (fwrite(bytes + in_bytes, 1, out_bytes, stdout) != out_bytes || fflush(stdout) != 0) {
            wrong = failed("stdout", "nobody takes the frames");
            break;
        }
    }
    if (got != 0 && got != in_bytes) wrong = failed("stdin", "the last frame breaks off");
    if (frame == 0 && got == 0) wrong = failed("stdin", "no frame came");
    free(bytes);
    return wrong;
}

static int one_picture(unrain_context *context, const unrain_options *o, char **names, unsigned long long frame) {
    picture image;
    unrain_frame view;
    int wrong = 0;
    const char *why = read_ppm(names[0], &image);
    if (why == NULL && (image.width != o->width || image.height != o->height)) why = "is not as large as the first one";
    if (why != NULL) {
        wrong = failed(names[0], why);
    } else {
        lay_out(&view, image.pixels, UNRAIN_RGB8, image.width, image.height);
        wrong = report(context, unrain_process(context, &view, &view), frame);
        why = write_ppm(names[1], &image);
        if (why != NULL) wrong = failed(names[1], why);
    }
    free(image.pixels);
    return wrong;
}

static int pictures(unrain_context *context, const unrain_options *o, char **names, int count) {
    int k, wrong = 0;
    for (k = 0; k < count; k += 2) wrong |= one_picture(context, o, names + k, (unsigned long long)k / 2 + 1);
    return wrong;
}

static void summary(const unrain_counters *c) {
    fprintf(stderr, "unrain-c: %llu frames: %llu ok, %llu late, %llu passed through; %.1f ms (99%%: %.1f ms)\n",
            c->frames, c->ok, c->late, c->passthrough, (double)c->p50_us / 1000.0, (double)c->p99_us / 1000.0);
}

static int run(const unrain_program *program, const command_line *line, char **names) {
    char message[256];
    unrain_counters counters;
    int wrong;
    unrain_context *context = unrain_context_open(program, &line->options, message, sizeof message);
    if (context == NULL) return failed(line->program, message);
    wrong =
        line->count > 0 ? pictures(context, &line->options, names, line->count) : raw_frames(context, &line->options);
    counters = unrain_statistics(context);
    if (!line->quiet && counters.frames > 0) summary(&counters);
    unrain_context_close(context);
    return wrong;
}

int main(int count, char **words) {
    char message[256];
    command_line line;
    picture first;
    unrain_program *program;
    const char *why;
    int wrong = read_command_line(count, words, &line);
    if (wrong != 0) return wrong;
    if (line.count > 0) {
        why = read_ppm(words[line.first], &first);
        free(first.pixels);
        if (why != NULL) return failed(words[line.first], why);
        line.options.width = first.width;
        line.options.height = first.height;
    }
    program = unrain_program_open(line.program, message, sizeof message);
    if (program == NULL) return failed(line.program, message);
    wrong = run(program, &line, words + line.first);
    unrain_program_close(program);
    return wrong;
}
