/* The parts of the GStreamer element `unrain`. */
#ifndef UNRAIN_GSTREAMER_ELEMENT_H
#define UNRAIN_GSTREAMER_ELEMENT_H

#include <gst/gst.h>
#include <gst/video/gstvideofilter.h>
#include <gst/video/video.h>
#include <unrain.h>

G_BEGIN_DECLS

typedef struct {
    gchar *model;
    gint stages, threads;
    unrain_precision precision;
    gfloat strength;
    gdouble deadline_ms;
    gboolean carry;
} GstUnrainSettings;

#define GST_TYPE_UNRAIN (gst_unrain_get_type())
G_DECLARE_FINAL_TYPE(GstUnrain, gst_unrain, GST, UNRAIN, GstVideoFilter)

struct _GstUnrain {
    GstVideoFilter parent;

    /* Under the object's lock: any thread may set a property at any time. */
    GstUnrainSettings settings;
    gboolean changed; /* since the context was opened */

    /* Of the thread that the frames come in, and of start and stop, when none come. */
    unrain_program *program;
    unrain_context *context;
};

/* properties.c: what gst-inspect-1.0 lists. */
void gst_unrain_install_properties(GObjectClass *klass);
void gst_unrain_set_defaults(GstUnrain *self);

G_END_DECLS

#endif
