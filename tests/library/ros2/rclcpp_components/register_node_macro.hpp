// What examples/ros2 uses of rclcpp_components, declared by hand.
#pragma once
#define RCLCPP_COMPONENTS_REGISTER_NODE(Class) \
    std::unique_ptr<rclcpp::Node> make_##Class(const rclcpp::NodeOptions& options) { return std::make_unique<Class>(options); }
