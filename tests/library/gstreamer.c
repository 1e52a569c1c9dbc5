/* The element `unrain` in a GstHarness: PROGRAM FAULTY BROKEN, a network for video, one whose results are no numbers,
 * and a file that is none. */
#include <gst/check/gstharness.h>
#include <gst/video/video.h>
#include <string.h>
#include <unrain.h>

static const char *program, *faulty, *broken;

static GstHarness *harness(const char *model, const char *rest) {
    gchar *line = g_strdup_printf("unrain model=\"%s\" threads=2 %s", model, rest);
    GstHarness *h = gst_harness_new_parse(line);
    g_free(line);
    return h;
}

static void set_caps(GstHarness *h, const char *format, int width, int height) {
    gchar *caps = g_strdup_printf("video/x-raw,format=%s,width=%d,height=%d,framerate=25/1", format, width, height);
    gst_harness_set_src_caps_str(h, caps);
    g_free(caps);
}

/* Plain pictures with noise, of the layout that GStreamer gives them. */
static GstBuffer *frame_of(GstVideoFormat format, int width, int height, guint32 seed, GstClockTime time) {
    GstVideoInfo info;
    GstBuffer *buffer;
    GstMapInfo map;
    gsize k;
    GRand *random = g_rand_new_with_seed(seed);
    gst_video_info_set_format(&info, format, width, height);
    buffer = gst_buffer_new_allocate(NULL, GST_VIDEO_INFO_SIZE(&info), NULL);
    g_assert_true(gst_buffer_map(buffer, &map, GST_MAP_WRITE));
    for (k = 0; k < map.size; ++k) map.data[k] = (guint8)g_rand_int_range(random, 60, 180);
    gst_buffer_unmap(buffer, &map);
    g_rand_free(random);
    GST_BUFFER_PTS(buffer) = time;
    GST_BUFFER_DTS(buffer) = time + 1;
    GST_BUFFER_DURATION(buffer) = 40 * GST_MSECOND;
    return buffer;
}

static gboolean equal(GstBuffer *one, GstBuffer *other) {
    GstMapInfo a, b;
    gboolean same;
    g_assert_true(gst_buffer_map(one, &a, GST_MAP_READ) && gst_buffer_map(other, &b, GST_MAP_READ));
    same = a.size == b.size && memcmp(a.data, b.data, a.size) == 0;
    gst_buffer_unmap(one, &a);
    gst_buffer_unmap(other, &b);
    return same;
}

/* What libunrain makes of a frame that stands alone. */
static void derain(GstBuffer *buffer, unrain_format as, GstVideoFormat format, int width, int height) {
    char message[256];
    GstVideoInfo info;
    GstVideoFrame frame;
    unrain_frame view = {{NULL, NULL}, {0, 0}};
    unrain_options options = unrain_default_options(width, height);
    unrain_program *opened = unrain_program_open(program, message, sizeof message);
    unrain_context *context;
    guint k;
    options.input = options.output = as;
    context = unrain_context_open(opened, &options, message, sizeof message);
    g_assert_nonnull(context);
    gst_video_info_set_format(&info, format, width, height);
    g_assert_true(gst_video_frame_map(&frame, &info, buffer, GST_MAP_READWRITE));
    for (k = 0; k < GST_VIDEO_FRAME_N_PLANES(&frame); ++k) {
        view.data[k] = GST_VIDEO_FRAME_PLANE_DATA(&frame, k);
        view.stride[k] = GST_VIDEO_FRAME_PLANE_STRIDE(&frame, k);
    }
    g_assert_cmpint(unrain_process(context, &view, &view), ==, UNRAIN_OK);
    gst_video_frame_unmap(&frame);
    unrain_context_close(context);
    unrain_program_close(opened);
}

static void every_format_at_any_width(void) {
    static const GstVideoFormat formats[] = {GST_VIDEO_FORMAT_RGB, GST_VIDEO_FORMAT_BGR, GST_VIDEO_FORMAT_NV12};
    static const int sizes[][2] = {{64, 48}, {70, 45}, {71, 46}, {33, 17}, {8, 8}};
    GstHarness *h = harness(program, "");
    GstClockTime time = 0;
    guint format, size;
    for (format = 0; format < G_N_ELEMENTS(formats); ++format) {
        for (size = 0; size < G_N_ELEMENTS(sizes); ++size) { /* each is a renegotiation */
            const int width = sizes[size][0], height = sizes[size][1];
            GstBuffer *expected = frame_of(formats[format], width, height, 7, 0), *got;
            derain(expected, (unrain_format)format, formats[format], width, height);
            set_caps(h, gst_video_format_to_string(formats[format]), width, height);
            got = gst_harness_push_and_pull(h, frame_of(formats[format], width, height, 7, time));
            g_assert_true(equal(got, expected));
            g_assert_cmpuint(GST_BUFFER_PTS(got), ==, time);
            time += 40 * GST_MSECOND;
            gst_buffer_unref(got);
            gst_buffer_unref(expected);
        }
    }
    gst_harness_teardown(h);
}

static void rows_may_lie_far_apart(void) {
    const int width = 70, height = 45;
    gsize offset[GST_VIDEO_MAX_PLANES] = {16, 16 + 128 * 50};
    gint stride[GST_VIDEO_MAX_PLANES] = {128, 96};
    GstHarness *h = harness(program, "");
    GstBuffer *plain = frame_of(GST_VIDEO_FORMAT_NV12, width, height, 7, 0), *got;
    GstBuffer *apart = gst_buffer_new_allocate(NULL, 16 + 128 * 50 + 96 * 25, NULL);
    GstVideoInfo info;
    GstVideoFrame from, to;
    gint k, x, y;
    gst_video_info_set_format(&info, GST_VIDEO_FORMAT_NV12, width, height);
    gst_buffer_memset(apart, 0, 99, gst_buffer_get_size(apart));
    gst_buffer_add_video_meta_full(apart, 0, GST_VIDEO_FORMAT_NV12, width, height, 2, offset, stride);
    g_assert_true(gst_video_frame_map(&from, &info, plain, GST_MAP_READ));
    g_assert_true(gst_video_frame_map(&to, &info, apart, GST_MAP_WRITE));
    g_assert_true(gst_video_frame_copy(&to, &from));
    gst_video_frame_unmap(&from);
    gst_video_frame_unmap(&to);
    derain(plain, UNRAIN_NV12, GST_VIDEO_FORMAT_NV12, width, height);
    set_caps(h, "NV12", width, height);
    got = gst_harness_push_and_pull(h, apart);
    g_assert_true(gst_video_frame_map(&from, &info, plain, GST_MAP_READ));
    g_assert_true(gst_video_frame_map(&to, &info, got, GST_MAP_READ));
    for (k = 0; k < 2; ++k) {
        for (y = 0; y < (k == 0 ? height : (height + 1) / 2); ++y) {
            const guint8 *row = (guint8 *)GST_VIDEO_FRAME_PLANE_DATA(&to, k) + y * stride[k];
            const guint8 *wanted =
                (guint8 *)GST_VIDEO_FRAME_PLANE_DATA(&from, k) + y * GST_VIDEO_FRAME_PLANE_STRIDE(&from, k);
            g_assert_cmpmem(row, width, wanted, width);
            for (x = width; x < stride[k]; ++x) g_assert_cmpint(row[x], ==, 99);
        }
    }
    gst_video_frame_unmap(&from);
    gst_video_frame_unmap(&to);
    gst_buffer_unref(plain);
    gst_buffer_unref(got);
    gst_harness_teardown(h);
}

static void times_flags_and_metas_stay(void) {
    GstHarness *h = harness(program, "");
    GstBuffer *buffer = frame_of(GST_VIDEO_FORMAT_RGB, 64, 48, 1, 123 * GST_MSECOND), *got;
    GstVideoRegionOfInterestMeta *meta;
    set_caps(h, "RGB", 64, 48);
    gst_buffer_add_video_region_of_interest_meta(buffer, "car", 1, 2, 3, 4);
    GST_BUFFER_OFFSET(buffer) = 55;
    GST_BUFFER_FLAG_SET(buffer, GST_BUFFER_FLAG_MARKER);
    got = gst_harness_push_and_pull(h, buffer);
    meta = gst_buffer_get_video_region_of_interest_meta(got);
    g_assert_true(meta != NULL && meta->x == 1 && meta->h == 4);
    g_assert_cmpuint(GST_BUFFER_PTS(got), ==, 123 * GST_MSECOND);
    g_assert_cmpuint(GST_BUFFER_DTS(got), ==, 123 * GST_MSECOND + 1);
    g_assert_cmpuint(GST_BUFFER_DURATION(got), ==, 40 * GST_MSECOND);
    g_assert_cmpuint(GST_BUFFER_OFFSET(got), ==, 55);
    g_assert_true(GST_BUFFER_FLAG_IS_SET(got, GST_BUFFER_FLAG_MARKER));
    gst_buffer_unref(got);
    gst_harness_teardown(h);
}

static void a_frame_that_others_hold_is_not_written(void) {
    GstHarness *h = harness(program, "");
    GstBuffer *held = frame_of(GST_VIDEO_FORMAT_RGB, 64, 48, 1, 0),
              *same = frame_of(GST_VIDEO_FORMAT_RGB, 64, 48, 1, 0);
    GstBuffer *got;
    set_caps(h, "RGB", 64, 48);
    got = gst_harness_push_and_pull(h, gst_buffer_ref(held));
    g_assert_true(equal(held, same) && !equal(held, got));
    gst_buffer_unref(held);
    gst_buffer_unref(same);
    gst_buffer_unref(got);
    gst_harness_teardown(h);
}

static GstBuffer *derained_after_another(const char *options, gboolean gap, gboolean seek) {
    GstHarness *h = harness(program, options);
    GstBuffer *second = frame_of(GST_VIDEO_FORMAT_RGB, 64, 48, 2, 40 * GST_MSECOND), *got;
    GstSegment segment;
    set_caps(h, "RGB", 64, 48);
    gst_buffer_unref(gst_harness_push_and_pull(h, frame_of(GST_VIDEO_FORMAT_RGB, 64, 48, 1, 0)));
    if (gap) GST_BUFFER_FLAG_SET(second, GST_BUFFER_FLAG_DISCONT);
    if (seek) {
        gst_segment_init(&segment, GST_FORMAT_TIME);
        g_assert_true(gst_harness_push_event(h, gst_event_new_segment(&segment)));
    }
    got = gst_harness_push_and_pull(h, second);
    gst_harness_teardown(h);
    return got;
}

static void the_state_goes_on_until_a_gap_or_a_seek(void) {
    GstBuffer *alone = derained_after_another("carry=false", FALSE, FALSE);
    GstBuffer *carried = derained_after_another("", FALSE, FALSE);
    GstBuffer *after_gap = derained_after_another("", TRUE, FALSE),
              *after_seek = derained_after_another("", FALSE, TRUE);
    g_assert_true(!equal(carried, alone) && equal(after_gap, alone) && equal(after_seek, alone));
    gst_buffer_unref(alone);
    gst_buffer_unref(carried);
    gst_buffer_unref(after_gap);
    gst_buffer_unref(after_seek);
}

static GstMessage *next_message(GstBus *bus, GstMessageType type) {
    GstMessage *message = gst_bus_pop_filtered(bus, type);
    g_assert_nonnull(message);
    return message;
}

static GstBus *bus_of(GstHarness *h) {
    GstBus *bus = gst_bus_new();
    gst_element_set_bus(h->element, bus);
    return bus;
}

static void passes_through(const char *model, const char *options, const char *reason) {
    GstHarness *h = harness(model, options);
    GstBus *bus = bus_of(h);
    GstBuffer *got;
    GstMessage *message;
    const GstStructure *said;
    guint64 time;
    gint k;
    set_caps(h, "NV12", 71, 45);
    for (k = 0; k < 3; ++k) {
        GstBuffer *raw = frame_of(GST_VIDEO_FORMAT_NV12, 71, 45, 3, 0);
        got = gst_harness_push_and_pull(h, frame_of(GST_VIDEO_FORMAT_NV12, 71, 45, 3, (GstClockTime)k * GST_SECOND));
        g_assert_true(equal(got, raw));
        g_assert_cmpuint(GST_BUFFER_PTS(got), ==, (GstClockTime)k * GST_SECOND);
        message = next_message(bus, GST_MESSAGE_ELEMENT);
        said = gst_message_get_structure(message);
        g_assert_true(gst_structure_has_name(said, "unrain"));
        g_assert_cmpstr(gst_structure_get_string(said, "outcome"), ==, "passthrough");
        g_assert_cmpstr(gst_structure_get_string(said, "reason"), ==, reason);
        g_assert_true(gst_structure_get_clock_time(said, "running-time", &time));
        g_assert_cmpuint(time, ==, (GstClockTime)k * GST_SECOND);
        gst_message_unref(message);
        gst_buffer_unref(got);
        gst_buffer_unref(raw);
    }
    gst_element_set_bus(h->element, NULL);
    gst_object_unref(bus);
    gst_harness_teardown(h);
}

static void a_fault_lets_the_frame_through(void) { passes_through(faulty, "", "the result is not finite"); }

static void so_does_a_deadline_that_nothing_meets(void) {
    passes_through(program, "deadline-ms=0.001", "no stage was ready at the deadline");
}

static void a_deadline_is_latency(void) {
    GstHarness *h = harness(program, "deadline-ms=30");
    set_caps(h, "RGB", 64, 48);
    gst_harness_set_upstream_latency(h, 5 * GST_MSECOND);
    gst_buffer_unref(gst_harness_push_and_pull(h, frame_of(GST_VIDEO_FORMAT_RGB, 64, 48, 1, 0)));
    g_assert_cmpuint(gst_harness_query_latency(h), ==, 35 * GST_MSECOND);
    gst_harness_set(h, "unrain", "deadline-ms", 0.0, NULL);
    g_assert_cmpuint(gst_harness_query_latency(h), ==, 5 * GST_MSECOND);
    gst_harness_teardown(h);
}

static void properties_change_between_frames(void) {
    GstHarness *h = harness(program, "");
    GstBus *bus = bus_of(h);
    GstBuffer *raw = frame_of(GST_VIDEO_FORMAT_RGB, 64, 48, 1, 0), *got;
    GstMessage *message;
    GError *error;
    set_caps(h, "RGB", 64, 48);
    got = gst_harness_push_and_pull(h, gst_buffer_copy_deep(raw));
    g_assert_false(equal(got, raw));
    gst_buffer_unref(got);
    gst_harness_set(h, "unrain", "strength", 0.0, NULL);
    got = gst_harness_push_and_pull(h, gst_buffer_copy_deep(raw));
    g_assert_true(equal(got, raw));
    gst_buffer_unref(got);
    gst_harness_set(h, "unrain", "stages", 99, NULL);
    g_assert_cmpint(gst_harness_push(h, gst_buffer_copy_deep(raw)), ==, GST_FLOW_ERROR);
    message = next_message(bus, GST_MESSAGE_ERROR);
    gst_message_parse_error(message, &error, NULL);
    g_assert_cmpstr(error->message, ==, "options: stages must be 0 (all) to 1, got 99");
    g_error_free(error);
    gst_message_unref(message);
    g_assert_cmpint(gst_harness_push(h, raw), ==, GST_FLOW_ERROR);
    gst_element_set_bus(h->element, NULL);
    gst_object_unref(bus);
    gst_harness_teardown(h);
}

static void does_not_start(const char *model, const char *reason) {
    GstElement *element = gst_element_factory_make("unrain", NULL);
    GstBus *bus = gst_bus_new();
    GstMessage *message;
    GError *error;
    g_object_set(element, "model", model, NULL);
    gst_element_set_bus(element, bus);
    g_assert_cmpint(gst_element_set_state(element, GST_STATE_PAUSED), ==, GST_STATE_CHANGE_FAILURE);
    message = gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR);
    g_assert_nonnull(message);
    gst_message_parse_error(message, &error, NULL);
    g_assert_nonnull(strstr(error->message, reason));
    g_assert_null(strchr(error->message, '\n'));
    g_error_free(error);
    gst_message_unref(message);
    gst_element_set_state(element, GST_STATE_NULL);
    gst_element_set_bus(element, NULL);
    gst_object_unref(bus);
    gst_object_unref(element);
}

static void a_model_that_is_none_is_one_line(void) {
    does_not_start(broken, "this is no program file (.unrain)");
    does_not_start("missing.unrain", "No such file");
    does_not_start(NULL, "set model=");
}

static void full_range_is_not_taken(void) {
    GstHarness *h = harness(program, "");
    GstBus *bus = bus_of(h);
    GstMessage *message;
    GError *error;
    gst_harness_set_src_caps_str(h, "video/x-raw,format=NV12,width=64,height=48,framerate=25/1,colorimetry=1:4:0:0");
    g_assert_cmpint(gst_harness_push(h, frame_of(GST_VIDEO_FORMAT_NV12, 64, 48, 1, 0)), ==, GST_FLOW_NOT_NEGOTIATED);
    message = next_message(bus, GST_MESSAGE_ERROR);
    gst_message_parse_error(message, &error, NULL);
    g_assert_nonnull(strstr(error->message, "full range"));
    g_error_free(error);
    gst_message_unref(message);
    gst_element_set_bus(h->element, NULL);
    gst_object_unref(bus);
    gst_harness_teardown(h);
}

static void it_starts_again(void) {
    GstHarness *h = harness(program, "");
    gint k;
    for (k = 0; k < 3; ++k) {
        set_caps(h, "RGB", 64, 48);
        gst_buffer_unref(gst_harness_push_and_pull(h, frame_of(GST_VIDEO_FORMAT_RGB, 64, 48, 1, 0)));
        gst_element_set_state(h->element, GST_STATE_NULL);
        gst_harness_play(h);
    }
    gst_harness_teardown(h);
}

int main(int count, char **words) {
    int wrong;
    gst_init(&count, &words);
    g_test_init(&count, &words, NULL);
    if (count != 4) return 2;
    program = words[1], faulty = words[2], broken = words[3];
#define ADD(test) g_test_add_func("/" #test, test)
    ADD(every_format_at_any_width);
    ADD(rows_may_lie_far_apart);
    ADD(times_flags_and_metas_stay);
    ADD(a_frame_that_others_hold_is_not_written);
    ADD(the_state_goes_on_until_a_gap_or_a_seek);
    ADD(a_fault_lets_the_frame_through);
    ADD(so_does_a_deadline_that_nothing_meets);
    ADD(a_deadline_is_latency);
    ADD(properties_change_between_frames);
    ADD(a_model_that_is_none_is_one_line);
    ADD(full_range_is_not_taken);
    ADD(it_starts_again);
    wrong = g_test_run();
    gst_deinit();
    return wrong;
}
