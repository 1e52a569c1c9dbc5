/* The properties of the element `unrain`. */
#include "element.h"

enum { NONE, MODEL, STAGES, THREADS, PRECISION, STRENGTH, DEADLINE_MS, CARRY };

#define MAY_CHANGE (G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_PLAYING)

static GType precision_type(void) {
    static gsize type = 0;
    static const GEnumValue values[] = {
        {UNRAIN_AUTO, "bfloat16 where the processor multiplies it, else float32", "auto"},
        {UNRAIN_F32, "float32", "fp32"},
        {UNRAIN_BF16, "bfloat16", "bf16"},
        {0, NULL, NULL},
    };
    if (g_once_init_enter(&type)) g_once_init_leave(&type, g_enum_register_static("GstUnrainPrecision", values));
    return type;
}

static void set_property(GObject *object, guint id, const GValue *value, GParamSpec *spec) {
    GstUnrain *self = GST_UNRAIN(object);
    GstUnrainSettings *s = &self->settings;
    GST_OBJECT_LOCK(self);
    self->changed = TRUE;
    switch (id) {
        case MODEL:
            g_free(s->model);
            s->model = g_value_dup_string(value);
            break;
        case STAGES:
            s->stages = g_value_get_int(value);
            break;
        case THREADS:
            s->threads = g_value_get_int(value);
            break;
        case PRECISION:
            s->precision = (unrain_precision)g_value_get_enum(value);
            break;
        case STRENGTH:
            s->strength = g_value_get_float(value);
            break;
        case DEADLINE_MS:
            s->deadline_ms = g_value_get_double(value);
            break;
        case CARRY:
            s->carry = g_value_get_boolean(value);
            break;
        default:
            G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, spec);
    }
    GST_OBJECT_UNLOCK(self);
    /* It is part of the latency: the pipeline asks anew. */
    if (id == DEADLINE_MS) gst_element_post_message(GST_ELEMENT(self), gst_message_new_latency(GST_OBJECT(self)));
}

static void get_property(GObject *object, guint id, GValue *value, GParamSpec *spec) {
    GstUnrain *self = GST_UNRAIN(object);
    const GstUnrainSettings *s = &self->settings;
    GST_OBJECT_LOCK(self);
    switch (id) {
        case MODEL:
            g_value_set_string(value, s->model);
            break;
        case STAGES:
            g_value_set_int(value, s->stages);
            break;
        case THREADS:
            g_value_set_int(value, s->threads);
            break;
        case PRECISION:
            g_value_set_enum(value, s->precision);
            break;
        case STRENGTH:
            g_value_set_float(value, s->strength);
            break;
        case DEADLINE_MS:
            g_value_set_double(value, s->deadline_ms);
            break;
        case CARRY:
            g_value_set_boolean(value, s->carry);
            break;
        default:
            G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, spec);
    }
    GST_OBJECT_UNLOCK(self);
}

void gst_unrain_set_defaults(GstUnrain *self) {
    const unrain_options o = unrain_default_options(0, 0);
    self->settings.stages = o.stages;
    self->settings.threads = o.threads;
    self->settings.precision = o.precision;
    self->settings.strength = o.strength;
    self->settings.deadline_ms = (gdouble)o.deadline_us / 1000.0;
    self->settings.carry = o.carry;
}

void gst_unrain_install_properties(GObjectClass *klass) {
    klass->set_property = set_property;
    klass->get_property = get_property;
    g_object_class_install_property(
        klass, MODEL,
        g_param_spec_string("model", "Model", "The network: a file that `unrain export --to program` wrote (.unrain)",
                            NULL, G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY));
    g_object_class_install_property(
        klass, STAGES,
        g_param_spec_int("stages", "Stages",
                         "How many stages of the network, for less time and less rain taken out (0 = all)", 0, G_MAXINT,
                         0, MAY_CHANGE));
    g_object_class_install_property(
        klass, THREADS,
        g_param_spec_int("threads", "Threads", "How many threads work on a frame (0 = the cores this process may use)",
                         0, G_MAXINT, 0, MAY_CHANGE));
    g_object_class_install_property(klass, PRECISION,
                                    g_param_spec_enum("precision", "Precision", "What the network computes in",
                                                      precision_type(), UNRAIN_AUTO, MAY_CHANGE));
    g_object_class_install_property(
        klass, STRENGTH,
        g_param_spec_float("strength", "Strength", "How much of the rain is taken out", 0.0F, 1.0F, 1.0F, MAY_CHANGE));
    g_object_class_install_property(
        klass, DEADLINE_MS,
        g_param_spec_double("deadline-ms", "Deadline",
                            "What a frame may take, in milliseconds: what is ready then goes out (0 = no deadline)",
                            0.0, 1e6, 0.0, MAY_CHANGE));
    g_object_class_install_property(
        klass, CARRY,
        g_param_spec_boolean("carry", "Carry",
                             "Go on from the frame before with a network that was trained for video; no other one does",
                             TRUE, MAY_CHANGE));
}
