// What examples/ros2 uses of rclcpp, declared by hand.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
namespace rclcpp {
class NodeOptions {};
class Logger {};
class Clock {};
class SensorDataQoS {};
template <class Message>
class Publisher {
public:
    using SharedPtr = std::shared_ptr<Publisher>;
    void publish(std::unique_ptr<Message> message);
};
template <class Message>
class Subscription {
public:
    using SharedPtr = std::shared_ptr<Subscription>;
};
class Node {
public:
    Node(const std::string& name, const NodeOptions& options);
    template <class Type>
    Type declare_parameter(const std::string& name, const Type& value);
    template <class Message>
    std::shared_ptr<Publisher<Message>> create_publisher(const std::string& topic, const SensorDataQoS& qos);
    template <class Message>
    std::shared_ptr<Subscription<Message>> create_subscription(const std::string& topic, const SensorDataQoS& qos,
                                                               std::function<void(std::unique_ptr<Message>)> callback);
    Logger get_logger() const;
    std::shared_ptr<Clock> get_clock();
};
void warn(const Logger& logger, Clock& clock, int milliseconds, const char* format, ...);
}  // namespace rclcpp
#define RCLCPP_WARN_THROTTLE(...) rclcpp::warn(__VA_ARGS__)
