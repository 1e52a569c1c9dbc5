"""What a model configuration of NVIDIA's inference server may say, as far as a folder of ours says it.

Names, numbers and types of the fields are those of the published model_config.proto; protobuf's own text parser checks
a configuration against them, so a misspelt field, a wrong type or a wrong nesting cannot be written.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ...engine.errors import UnrainError

ENUMS = {
    "DataType": {
        "TYPE_INVALID": 0,
        "TYPE_BOOL": 1,
        "TYPE_UINT8": 2,
        "TYPE_INT32": 8,
        "TYPE_INT64": 9,
        "TYPE_FP16": 10,
        "TYPE_FP32": 11,
        "TYPE_BF16": 14,
    },
    "Format": {"FORMAT_NONE": 0, "FORMAT_NHWC": 1, "FORMAT_NCHW": 2},
    "GroupKind": {"KIND_AUTO": 0, "KIND_GPU": 1, "KIND_CPU": 2, "KIND_MODEL": 3},
    "ControlKind": {
        "CONTROL_SEQUENCE_START": 0,
        "CONTROL_SEQUENCE_READY": 1,
        "CONTROL_SEQUENCE_END": 2,
        "CONTROL_SEQUENCE_CORRID": 3,
    },
}

# message: {field: (number, type, "" or "*" for repeated)}
MESSAGES = {
    "ModelInput": {
        "name": (1, "string", ""),
        "data_type": (2, "DataType", ""),
        "format": (3, "Format", ""),
        "dims": (4, "int64", "*"),
    },
    "ModelOutput": {"name": (1, "string", ""), "data_type": (2, "DataType", ""), "dims": (3, "int64", "*")},
    "ModelInstanceGroup": {
        "name": (1, "string", ""),
        "count": (2, "int32", ""),
        "gpus": (3, "int32", "*"),
        "kind": (4, "GroupKind", ""),
    },
    "ModelDynamicBatching": {
        "preferred_batch_size": (1, "int32", "*"),
        "max_queue_delay_microseconds": (2, "uint64", ""),
        "preserve_ordering": (3, "bool", ""),
    },
    "Control": {
        "kind": (1, "ControlKind", ""),
        "int32_false_true": (2, "int32", "*"),
        "fp32_false_true": (3, "float", "*"),
        "data_type": (4, "DataType", ""),
    },
    "ControlInput": {"name": (1, "string", ""), "control": (2, "Control", "*")},
    "InitialState": {
        "data_type": (1, "DataType", ""),
        "dims": (2, "int64", "*"),
        "zero_data": (3, "bool", ""),
        "name": (5, "string", ""),
    },
    "State": {
        "input_name": (1, "string", ""),
        "output_name": (2, "string", ""),
        "data_type": (3, "DataType", ""),
        "dims": (4, "int64", "*"),
        "initial_state": (5, "InitialState", "*"),
    },
    "StrategyDirect": {"max_queue_delay_microseconds": (1, "uint64", ""), "minimum_slot_utilization": (2, "float", "")},
    "StrategyOldest": {"max_candidate_sequences": (1, "int32", ""), "max_queue_delay_microseconds": (3, "uint64", "")},
    "ModelSequenceBatching": {
        "max_sequence_idle_microseconds": (1, "uint64", ""),
        "control_input": (2, "ControlInput", "*"),
        "direct": (3, "StrategyDirect", ""),
        "oldest": (4, "StrategyOldest", ""),
        "state": (5, "State", "*"),
    },
    "ModelConfig": {
        "name": (1, "string", ""),
        "platform": (2, "string", ""),
        "max_batch_size": (4, "int32", ""),
        "input": (5, "ModelInput", "*"),
        "output": (6, "ModelOutput", "*"),
        "instance_group": (7, "ModelInstanceGroup", "*"),
        "default_model_filename": (8, "string", ""),
        "dynamic_batching": (11, "ModelDynamicBatching", ""),
        "sequence_batching": (13, "ModelSequenceBatching", ""),
        "backend": (17, "string", ""),
    },
}


def parse(text: str, source: str) -> Any:
    """The configuration as a protobuf message; an error names the line that the schema does not know."""
    from google.protobuf import text_format

    try:
        return text_format.Parse(text, _model_config()())
    except text_format.ParseError as error:
        raise UnrainError(f"{source} is no model configuration: {error}") from error


@cache
def _model_config() -> Any:
    """The message class of ModelConfig, made from the tables above."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="unrain_model_config.proto", package="inference", syntax="proto3")
    for enum, values in ENUMS.items():
        proto = file.enum_type.add(name=enum)
        for value, number in values.items():
            proto.value.add(name=value, number=number)
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, fields in MESSAGES.items():
        proto = file.message_type.add(name=message)
        for field, (number, kind, repeated) in fields.items():
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            added = proto.field.add(name=field, number=number, label=label)
            if kind in ENUMS or kind in MESSAGES:
                added.type = kinds.TYPE_ENUM if kind in ENUMS else kinds.TYPE_MESSAGE
                added.type_name = f".inference.{kind}"
            else:
                added.type = getattr(kinds, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))
