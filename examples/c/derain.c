/* Takes the rain out of PPM pictures with libunrain:
 *
 *     cc -std=c99 derain.c $(pkg-config --cflags --libs unrain) -o derain
 *     ./derain wiper.unrain first.ppm first-dry.ppm second.ppm second-dry.ppm
 *
 * All pictures must have one size; they are taken for the frames of one camera, in their order. A frame that was not
 * derained is written as it came, and the reason is said. The exit code is 0 when every frame was derained.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unrain.h>

typedef struct {
    int width, height;
    unsigned char *pixels;
} picture;

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
    return digits > 0 ? number : -1; /* the one character behind it is read, too, as the format asks */
}

static const char *read_ppm(const char *path, picture *to) {
    FILE *file = fopen(path, "rb");
    const char *wrong = NULL;
    size_t size;
    to->pixels = NULL;
    if (file == NULL) return "cannot be opened";
    if (fgetc(file) != 'P' || fgetc(file) != '6') {
        wrong = "is not a binary PPM";
    } else {
        to->width = next_number(file);
        to->height = next_number(file);
        if (next_number(file) != 255) {
            wrong = "does not have 8 bits per channel";
        } else if (to->width < 8 || to->height < 8) {
            wrong = "is smaller than 8 x 8";
        } else {
            size = 3 * (size_t)to->width * (size_t)to->height;
            to->pixels = malloc(size);
            if (to->pixels == NULL) {
                wrong = "is too large for the memory";
            } else if (fread(to->pixels, 1, size, file) != size) {
                wrong = "breaks off";
            }
        }
    }
    fclose(file);
    return wrong;
}

static const char *write_ppm(const char *path, const picture *from) {
    const size_t size = 3 * (size_t)from->width * (size_t)from->height;
    FILE *file = fopen(path, "wb");
    int whole;
    if (file == NULL) return "cannot be written";
    whole = fprintf(file, "P6\n%d %d\n255\n", from->width, from->height) > 0;
    whole = fwrite(from->pixels, 1, size, file) == size && whole;
    return fclose(file) == 0 && whole ? NULL : "could not be written whole";
}

static int failed(const char *what, const char *why) {
    fprintf(stderr, "derain: %s: %s\n", what, why);
    return 1;
}

/* One picture through the context, in place. */
static int derain(unrain_context *context, const char *from, const char *to, int width, int height) {
    picture frame;
    unrain_frame view;
    unrain_outcome outcome;
    int wrong = 0;
    const char *why = read_ppm(from, &frame);
    if (why == NULL && (frame.width != width || frame.height != height)) why = "is not as large as the first picture";
    if (why == NULL) {
        memset(&view, 0, sizeof view);
        view.data[0] = frame.pixels;
        view.stride[0] = 3 * (ptrdiff_t)width;
        outcome = unrain_process(context, &view, &view);
        if (outcome != UNRAIN_OK) wrong = failed(from, unrain_reason(context));
        why = outcome == UNRAIN_REFUSED ? NULL : write_ppm(to, &frame);
        from = to;
    }
    free(frame.pixels);
    return why == NULL ? wrong : failed(from, why);
}

int main(int count, char **words) {
    char message[256];
    unrain_program *program;
    unrain_context *context;
    unrain_options options;
    unrain_counters counted;
    picture first;
    int k, wrong = 0;
    const char *why;
    if (count < 4 || count % 2 != 0) {
        fprintf(stderr, "usage: derain PROGRAM IN.ppm OUT.ppm [IN.ppm OUT.ppm ...]   (libunrain %s)\n", unrain_version());
        return 2;
    }
    why = read_ppm(words[2], &first);
    free(first.pixels);
    if (why != NULL) return failed(words[2], why);
    program = unrain_program_open(words[1], message, sizeof message);
    if (program == NULL) return failed(words[1], message);
    options = unrain_default_options(first.width, first.height);
    context = unrain_context_open(program, &options, message, sizeof message);
    if (context == NULL) {
        unrain_program_close(program);
        return failed(words[1], message);
    }
    for (k = 2; k < count; k += 2) {
        wrong |= derain(context, words[k], words[k + 1], first.width, first.height);
    }
    counted = unrain_statistics(context);
    fprintf(stderr, "derain: %llu frames, %llu of them derained, half of them within %.1f ms\n", counted.frames,
            counted.ok, (double)counted.p50_us / 1000.0);
    unrain_context_close(context);
    unrain_program_close(program);
    return wrong;
}
