// What examples/ros2 uses of sensor_msgs, declared by hand.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>
namespace sensor_msgs::msg {
struct Image {
    using UniquePtr = std::unique_ptr<Image>;
    struct {
        struct {
            std::int32_t sec;
            std::uint32_t nanosec;
        } stamp;
        std::string frame_id;
    } header;
    std::uint32_t height, width;
    std::string encoding;
    std::uint8_t is_bigendian;
    std::uint32_t step;
    std::vector<std::uint8_t> data;
};
}  // namespace sensor_msgs::msg
