// A ROS 2 node that takes the rain out of a camera's images with libunrain:
// image_raw in, image_derained out. It is a recipe: the README beside it says
// how it becomes a package, and what of it was tried.
#include <unrain.h>

#include <cmath>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include <rclcpp/rclcpp.hpp>
#include <rclcpp_components/register_node_macro.hpp>
#include <sensor_msgs/msg/image.hpp>

using sensor_msgs::msg::Image;

namespace {

struct Close {
    void operator()(unrain_program* program) const { unrain_program_close(program); }
    void operator()(unrain_context* context) const { unrain_context_close(context); }
};

}  // namespace

class DerainNode : public rclcpp::Node {
public:
    explicit DerainNode(const rclcpp::NodeOptions& options) : Node("derain", options) {
        const std::string model = declare_parameter<std::string>("model", "wiper.unrain");
        strength_ = declare_parameter<double>("strength", 1.0);
        deadline_ms_ = declare_parameter<double>("deadline_ms", 0.0);
        char message[256];
        program_.reset(unrain_program_open(model.c_str(), message, sizeof message));
        if (!program_) throw std::runtime_error(model + ": " + message);
        publisher_ = create_publisher<Image>("image_derained", rclcpp::SensorDataQoS());
        // The node's callbacks come one at a time, as a context asks.
        subscription_ =
            create_subscription<Image>("image_raw", rclcpp::SensorDataQoS(), [this](Image::UniquePtr image) {
                derain(*image);
                publisher_->publish(std::move(image));
            });
    }

private:
    // In place, so that the header stays; an image that cannot be derained goes
    // on as it came.
    void derain(Image& image) {
        if (!fits(image) && !open(image)) return;
        const double now = image.header.stamp.sec + 1e-9 * image.header.stamp.nanosec;
        if (std::abs(now - last_) > kLongestGap) unrain_reset(context_.get());
        last_ = now;
        const unrain_frame frame = {{image.data.data(), nullptr}, {static_cast<ptrdiff_t>(image.step), 0}};
        if (unrain_process(context_.get(), &frame, &frame) != UNRAIN_OK) complain(unrain_reason(context_.get()));
    }

    bool fits(const Image& image) const {
        return context_ && image.width == width_ && image.height == height_ && image.encoding == encoding_;
    }

    bool open(const Image& image) {
        const bool rgb = image.encoding == "rgb8";
        if (!rgb && image.encoding != "bgr8") return complain("images must be rgb8 or bgr8");
        unrain_options options = unrain_default_options(static_cast<int>(image.width), static_cast<int>(image.height));
        options.input = options.output = rgb ? UNRAIN_RGB8 : UNRAIN_BGR8;
        options.strength = static_cast<float>(strength_);
        options.deadline_us = static_cast<long long>(1000 * deadline_ms_);
        char message[256];
        context_.reset(unrain_context_open(program_.get(), &options, message, sizeof message));
        width_ = image.width;
        height_ = image.height;
        encoding_ = image.encoding;
        return context_ != nullptr || complain(message);
    }

    bool complain(const char* why) {
        RCLCPP_WARN_THROTTLE(get_logger(), *get_clock(), 1000, "%s", why);
        return false;
    }

    static constexpr double kLongestGap = 0.5;  // seconds, after which a frame does not continue the last one

    std::unique_ptr<unrain_program, Close> program_;
    std::unique_ptr<unrain_context, Close> context_;  // closed before its program
    double strength_ = 1, deadline_ms_ = 0, last_ = 0;
    std::uint32_t width_ = 0, height_ = 0;
    std::string encoding_;
    rclcpp::Publisher<Image>::SharedPtr publisher_;
    rclcpp::Subscription<Image>::SharedPtr subscription_;
};

RCLCPP_COMPONENTS_REGISTER_NODE(DerainNode)
