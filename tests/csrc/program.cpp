// The core of programs: one small program on every tier, in memory of exactly the size that was planned and full of
// NaN; and the same file cut short and damaged everywhere.
#include "../../csrc/program/program.h"

#include <chrono>
#include <cmath>

#include "check.h"
#include "program_bytes.h"
#include "program_file.h"

using namespace unrain;
using namespace unrain::program;
using program_bytes::Block;
using program_bytes::block_of;

namespace {

constexpr int kBatch = 2, kHeight = 21, kWidth = 18, kNumbers = kBatch * 3 * kHeight * kWidth;

std::vector<float> pictures() {
    std::vector<float> x(kNumbers);
    std::mt19937 random(3);
    std::uniform_real_distribution<float> uniform(0, 1);
    for (float& number : x) number = uniform(random);
    return x;
}

// Both runs one after the other, the second from the state that the first one left.
std::vector<float> results(const Program& program, const Tier& tier, DType maps, int threads) {
    Message message;
    Prepared prepared;
    CHECK(prepared.plan(program, {maps, DType::f32}, message), "%s", message.text);
    const Block weights = block_of(prepared.bytes());
    CHECK(prepared.pack(weights.get(), message), "%s", message.text);
    Plan plan;
    CHECK(make_plan(prepared, {kBatch, kHeight, kWidth}, threads, plan, message), "%s", message.text);
    const Block memory = block_of(plan.bytes());
    Context context(plan, memory.get(), tier.program, tier.name);
    const std::vector<float> x = pictures();
    std::vector<float> y(2 * kNumbers);
    CHECK(context.start(0, x.data(), message) && context.advance(1, y.data(), message), "%s", message.text);
    const Place from = context.state(0, 1, 0), to = context.port(1, 0);
    std::memmove(to.data, from.data, static_cast<std::size_t>(kBatch * from.numbers()) * sizeof(float));
    CHECK(context.start(1, x.data(), message) && context.advance(1, y.data() + kNumbers, message), "%s", message.text);
    return y;
}

void check_runs(const Program& program) {
    for (const DType maps : {DType::f32, DType::bf16}) {
        std::vector<float> generic;
        for (const Tier* const* tier = runnable_tiers(); *tier != nullptr; ++tier) {
            const std::vector<float> one = results(program, **tier, maps, 1);
            const std::vector<float> three = results(program, **tier, maps, 3);
            CHECK(one == three, "on %s a result changes with threads", (*tier)->name);
            if (generic.empty()) generic = results(program, *pick_tier("generic"), maps, 1);
            double largest = 0;
            for (std::size_t k = 0; k < one.size(); ++k) {
                CHECK(std::isfinite(one[k]), "on %s number %d is none", (*tier)->name, static_cast<int>(k));
                largest = std::fmax(largest, std::fabs(static_cast<double>(one[k]) - static_cast<double>(generic[k])));
            }
            CHECK(largest < (maps == DType::f32 ? 1e-4 : 0.05), "%s is %g from generic", (*tier)->name, largest);
        }
    }
}

void check_truncated(const std::vector<unsigned char>& file) {
    for (std::size_t size = 0; size < file.size(); size += size < 300 ? 1 : 67) {
        std::vector<unsigned char> cut(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(size));
        CHECK(!program_bytes::take(cut.data(), size), "%d bytes were accepted", static_cast<int>(size));
        if (size < sizeof(Header)) continue;
        std::uint64_t told = size;  // it lies about its length, too
        std::memcpy(cut.data() + offsetof(Header, file_bytes), &told, sizeof(told));
        program_bytes::take(cut.data(), size);
    }
}

void check_flipped(std::vector<unsigned char> file, double seconds) {
    const auto begin = std::chrono::steady_clock::now();
    const auto spent = [&begin] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    };
    Program program;
    for (std::size_t at = sizeof(Header); at < file.size(); at += 401) {
        std::vector<unsigned char> damaged = file;
        damaged[at] ^= 0xFF;
        const Block whole = block_of(file.size());
        std::memcpy(whole.get(), damaged.data(), file.size());
        Message message;
        CHECK(!read(whole.get(), file.size(), program, message), "byte %d may be any", static_cast<int>(at));
    }
    const std::size_t tables = sizeof(Header) + 64 * 160;  // weights may be any numbers
    for (const int flip : {0xFF, 0x01, 0x80, 0x40, 0x10, 0x02}) {
        for (std::size_t at = 0; at < file.size() && at < tables && spent() < seconds; ++at) {
            file[at] = static_cast<unsigned char>(file[at] ^ flip);
            program_bytes::take(file.data(), file.size());
            file[at] = static_cast<unsigned char>(file[at] ^ flip);
        }
    }
    std::mt19937 random(1);
    while (spent() < seconds) {  // several at once
        std::vector<unsigned char> damaged = file;
        for (int k = 0; k < 4; ++k) damaged[random() % tables] = static_cast<unsigned char>(random());
        program_bytes::take(damaged.data(), damaged.size());
    }
}

}  // namespace

void check_program(double seconds);
void check_program(double seconds) {
    const std::vector<unsigned char> file = program_file::small();
    const Block whole = block_of(file.size());
    std::memcpy(whole.get(), file.data(), file.size());
    Program program;
    Message message;
    CHECK(read(whole.get(), file.size(), program, message), "%s", message.text);
    if (program.header == nullptr) return;
    check_runs(program);
    check_truncated(file);
    check_flipped(file, seconds);
}
