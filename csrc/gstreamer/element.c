/* unrain: takes rain out of video.
 *
 * A GstVideoFilter that works in place, so that time stamps, flags and metas stay those of the buffer that came. A
 * program is opened when the element leaves READY, a context for each caps, and anew where a property changed since.
 */
#include "element.h"

GST_DEBUG_CATEGORY_STATIC(category);
#define GST_CAT_DEFAULT category

G_DEFINE_TYPE(GstUnrain, gst_unrain, GST_TYPE_VIDEO_FILTER)

#define CAPS                                                                          \
    "video/x-raw, format = (string) { NV12, RGB, BGR }, width = (int) [ 8, 65536 ], " \
    "height = (int) [ 8, 65536 ], framerate = (fraction) [ 0, max ]"

static GstStaticPadTemplate sink_template =
    GST_STATIC_PAD_TEMPLATE("sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS(CAPS));
static GstStaticPadTemplate src_template =
    GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS(CAPS));

static unrain_format format_of(const GstVideoInfo *info) {
    switch (GST_VIDEO_INFO_FORMAT(info)) {
        case GST_VIDEO_FORMAT_RGB:
            return UNRAIN_RGB8;
        case GST_VIDEO_FORMAT_BGR:
            return UNRAIN_BGR8;
        default:
            return UNRAIN_NV12;
    }
}

static unrain_options options_for(GstUnrain *self, const GstVideoInfo *info) {
    unrain_options o = unrain_default_options(GST_VIDEO_INFO_WIDTH(info), GST_VIDEO_INFO_HEIGHT(info));
    o.input = o.output = format_of(info);
    GST_OBJECT_LOCK(self);
    o.stages = self->settings.stages;
    o.threads = self->settings.threads;
    o.precision = self->settings.precision;
    o.strength = self->settings.strength;
    o.deadline_us = (long long)(self->settings.deadline_ms * 1000.0 + 0.5);
    o.carry = self->settings.carry ? 1 : 0;
    self->changed = FALSE;
    GST_OBJECT_UNLOCK(self);
    return o;
}

static gboolean open_context(GstUnrain *self, const GstVideoInfo *info) {
    char message[256];
    const unrain_options o = options_for(self, info);
    unrain_context_close(self->context);
    self->context = unrain_context_open(self->program, &o, message, sizeof message);
    if (self->context == NULL) GST_ELEMENT_ERROR(self, LIBRARY, SETTINGS, ("%s", message), (NULL));
    return self->context != NULL;
}

static gboolean start(GstBaseTransform *base) {
    GstUnrain *self = GST_UNRAIN(base);
    char message[256];
    gchar *model;
    g_object_get(self, "model", &model, NULL);
    if (model == NULL) {
        GST_ELEMENT_ERROR(self, RESOURCE, SETTINGS, ("There is no model: set model=FILE.unrain"), (NULL));
        return FALSE;
    }
    self->program = unrain_program_open(model, message, sizeof message);
    if (self->program == NULL) GST_ELEMENT_ERROR(self, RESOURCE, OPEN_READ, ("%s: %s", model, message), (NULL));
    g_free(model);
    return self->program != NULL;
}

static gboolean stop(GstBaseTransform *base) {
    GstUnrain *self = GST_UNRAIN(base);
    unrain_context_close(self->context);
    unrain_program_close(self->program);
    self->context = NULL;
    self->program = NULL;
    return TRUE;
}

static gboolean set_info(GstVideoFilter *filter, GstCaps *in_caps, GstVideoInfo *in, GstCaps *out_caps,
                         GstVideoInfo *out) {
    GstUnrain *self = GST_UNRAIN(filter);
    (void)in_caps, (void)out_caps, (void)out;
    if (GST_VIDEO_INFO_IS_YUV(in) && in->colorimetry.range == GST_VIDEO_COLOR_RANGE_0_255) {
        GST_ELEMENT_ERROR(self, STREAM, FORMAT,
                          ("NV12 of full range is not taken: put videoconvert ! video/x-raw,format=RGB before unrain"),
                          (NULL));
        return FALSE;
    }
    return open_context(self, in);
}

/* What goes on after a seek, or is another stream, does not continue the last frame. */
static gboolean sink_event(GstBaseTransform *base, GstEvent *event) {
    if (GST_EVENT_TYPE(event) == GST_EVENT_SEGMENT) unrain_reset(GST_UNRAIN(base)->context);
    return GST_BASE_TRANSFORM_CLASS(gst_unrain_parent_class)->sink_event(base, event);
}

/* A live sink waits as long as a frame may take. */
static gboolean query(GstBaseTransform *base, GstPadDirection direction, GstQuery *asked) {
    gdouble deadline_ms;
    gboolean live;
    GstClockTime least, most, longer;
    if (!GST_BASE_TRANSFORM_CLASS(gst_unrain_parent_class)->query(base, direction, asked)) return FALSE;
    if (GST_QUERY_TYPE(asked) == GST_QUERY_LATENCY && direction == GST_PAD_SRC) {
        g_object_get(base, "deadline-ms", &deadline_ms, NULL);
        longer = (GstClockTime)(deadline_ms * (gdouble)GST_MSECOND);
        gst_query_parse_latency(asked, &live, &least, &most);
        gst_query_set_latency(asked, live, least + longer, GST_CLOCK_TIME_IS_VALID(most) ? most + longer : most);
    }
    return TRUE;
}

static void tell(GstUnrain *self, const GstBuffer *buffer, const char *outcome) {
    const GstSegment *segment = &GST_BASE_TRANSFORM(self)->segment;
    const GstClockTime time = GST_BUFFER_PTS(buffer);
    const char *reason = unrain_reason(self->context);
    GST_INFO_OBJECT(self, "%" GST_TIME_FORMAT ": %s: %s", GST_TIME_ARGS(time), outcome, reason);
    gst_element_post_message(
        GST_ELEMENT(self),
        gst_message_new_element(
            GST_OBJECT(self),
            gst_structure_new("unrain", "outcome", G_TYPE_STRING, outcome, "reason", G_TYPE_STRING, reason, "timestamp",
                              GST_TYPE_CLOCK_TIME, time, "stream-time", GST_TYPE_CLOCK_TIME,
                              gst_segment_to_stream_time(segment, GST_FORMAT_TIME, time), "running-time",
                              GST_TYPE_CLOCK_TIME, gst_segment_to_running_time(segment, GST_FORMAT_TIME, time), NULL)));
}

static gboolean has_changed(GstUnrain *self) {
    gboolean changed;
    GST_OBJECT_LOCK(self);
    changed = self->changed;
    GST_OBJECT_UNLOCK(self);
    return changed;
}

static GstFlowReturn transform_frame_ip(GstVideoFilter *filter, GstVideoFrame *frame) {
    GstUnrain *self = GST_UNRAIN(filter);
    unrain_frame view = {{NULL, NULL}, {0, 0}};
    guint k;
    if (has_changed(self) && !open_context(self, &filter->in_info)) return GST_FLOW_ERROR;
    if (GST_BUFFER_IS_DISCONT(frame->buffer)) unrain_reset(self->context);
    for (k = 0; k < GST_VIDEO_FRAME_N_PLANES(frame); ++k) {
        view.data[k] = GST_VIDEO_FRAME_PLANE_DATA(frame, k);
        view.stride[k] = GST_VIDEO_FRAME_PLANE_STRIDE(frame, k);
    }
    switch (unrain_process(self->context, &view, &view)) {
        case UNRAIN_OK:
            break;
        case UNRAIN_LATE:
            tell(self, frame->buffer, "late");
            break;
        case UNRAIN_PASSTHROUGH:
            tell(self, frame->buffer, "passthrough");
            break;
        case UNRAIN_REFUSED:
            GST_ELEMENT_ERROR(self, STREAM, FAILED, ("%s", unrain_reason(self->context)), (NULL));
            return GST_FLOW_ERROR;
    }
    return GST_FLOW_OK;
}

static void finalize(GObject *object) {
    g_free(GST_UNRAIN(object)->settings.model);
    G_OBJECT_CLASS(gst_unrain_parent_class)->finalize(object);
}

static void gst_unrain_init(GstUnrain *self) { gst_unrain_set_defaults(self); }

static void gst_unrain_class_init(GstUnrainClass *klass) {
    GstElementClass *element = GST_ELEMENT_CLASS(klass);
    GstBaseTransformClass *base = GST_BASE_TRANSFORM_CLASS(klass);
    GST_DEBUG_CATEGORY_INIT(category, "unrain", 0, "takes rain out of video");
    gst_unrain_install_properties(G_OBJECT_CLASS(klass));
    G_OBJECT_CLASS(klass)->finalize = finalize;
    gst_element_class_set_static_metadata(element, "Rain remover", "Filter/Effect/Video",
                                          "Takes rain out of video with a network that unrain exported",
                                          "The unrain authors");
    gst_element_class_add_static_pad_template(element, &sink_template);
    gst_element_class_add_static_pad_template(element, &src_template);
    base->start = start;
    base->stop = stop;
    base->sink_event = sink_event;
    base->query = query;
    GST_VIDEO_FILTER_CLASS(klass)->set_info = set_info;
    GST_VIDEO_FILTER_CLASS(klass)->transform_frame_ip = transform_frame_ip;
}
