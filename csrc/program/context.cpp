#include "context.h"

namespace unrain::program {

bool Context::start(std::uint32_t run, const float* pictures, Message& message) {
    if (run >= plan_.program().header->runs) return message.say("this program has no such run");
    if (pictures == nullptr) return message.say("the pictures are missing");
    run_ = run;
    PictureCall call = pictures_at(0);
    call.from = pictures;
    kernels_.picture_in(call);
    begin();
    return true;
}

bool Context::start_written(std::uint32_t run, Message& message) {
    if (run >= plan_.program().header->runs) return message.say("this program has no such run");
    run_ = run;
    kernels_.picture_padding(pictures_at(0));
    begin();
    return true;
}

void Context::begin() {
    // A state that is a picture was cropped and padded anew between two calls of the network.
    const Run& run = plan_.program().runs[run_];
    for (std::uint32_t k = 0; run_ > 0 && k < run.ports; ++k) {
        const Port& port = plan_.program().port(run, k);
        if (port.log2_down == 0 && port.channels <= kThinChannels) {
            kernels_.picture_padding(pictures_at(port.value));
        }
    }
    done_ = 0;
    started_ = true;
}

bool Context::advance(std::uint32_t mark, float* pictures, Message& message) {
    const Run& run = plan_.program().runs[run_];
    if (!started_ || mark < 1 || mark > run.marks) return message.say("there is no such mark, or nothing was started");
    const Mark& to = plan_.program().mark(run, mark - 1);
    if (to.after < done_) return message.say("that mark has been passed");
    for (; done_ < to.after; ++done_) {
        const Instruction& i = plan_.program().instruction(run, done_);
        if (i.only_for_mark != 0 && i.only_for_mark != mark) continue;
        if (late_ != nullptr && late_(late_of_)) {
            started_ = false;
            return false;
        }
        if (!instruction(i, message)) return false;
    }
    if (pictures == nullptr) return true;
    PictureCall call = pictures_at(to.picture);
    call.to = pictures;
    kernels_.picture_out(call);
    return true;
}

PictureCall Context::pictures_at(std::uint32_t value) const {
    PictureCall call;
    call.map = place_of(plan_, run_, value, arena_);
    call.padding = plan_.program().header->padding;
    call.batch = plan_.size.batch;
    call.height = plan_.size.height;
    call.width = plan_.size.width;
    call.threads = plan_.threads;
    return call;
}

bool Context::instruction(const Instruction& i, Message& message) {
    Operation operation = operation_of(plan_, run_, i, arena_);
    operation.workspace = arena_ + plan_.arena;
    if (i.op != Op::conv && i.op != Op::conv_lstm) {
        kernels_.operation(operation);
        return true;
    }
    const Layer& layer = plan_.prepared->layer(i);
    ConvCall call{};
    for (int k = 0; k < layer.conv.sources; ++k) call.x[k] = operation.x[k].data;
    call.packed = layer.packed;
    const void* last = operation.x[operation.operands - 1].data;
    if (layer.conv.adds) call.add = last;
    if (layer.conv.gates == 4) call.c = static_cast<const float*>(last);
    call.c_next = static_cast<float*>(operation.second.data);
    call.y = operation.y.data;
    call.batch = plan_.size.batch;
    call.height = operation.x[0].height;
    call.width = operation.x[0].width;
    call.workspace = operation.workspace;
    call.threads = plan_.threads;
    if (const char* wrong = unrain::run(layer.conv, call, tier_)) {
        const Origin origin(plan_.program(), i);
        return message.say("%s: %s", origin.text, wrong);
    }
    return true;
}

Place Context::picture(std::uint32_t run, std::uint32_t mark) const {
    return place_of(plan_, run, plan_.program().mark(plan_.program().runs[run], mark - 1).picture, arena_);
}

Place Context::port(std::uint32_t run, std::uint32_t number) const {
    return place_of(plan_, run, plan_.program().port(plan_.program().runs[run], number).value, arena_);
}

Place Context::state(std::uint32_t run, std::uint32_t mark, std::uint32_t number) const {
    const Program& program = plan_.program();
    const Mark& at = program.mark(program.runs[run], mark - 1);
    return place_of(plan_, run, program.operands[at.first_state + number], arena_);
}

}  // namespace unrain::program
