/* libgstunrain.so, the plugin `unrain` of GStreamer: the element of that name. */
#include "element.h"

#define PACKAGE "unrain"

static gboolean register_element(GstPlugin *plugin) {
    return gst_element_register(plugin, "unrain", GST_RANK_NONE, GST_TYPE_UNRAIN);
}

GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, unrain, "Takes rain out of video", register_element,
                  UNRAIN_VERSION, "Apache 2.0", PACKAGE, "Unknown package origin")
