from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DTYPE_UNSPECIFIED: _ClassVar[DType]
    DTYPE_FLOAT32: _ClassVar[DType]

class Direction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DIRECTION_UNSPECIFIED: _ClassVar[Direction]
    DIRECTION_OFFER: _ClassVar[Direction]
    DIRECTION_DELIVERY: _ClassVar[Direction]
DTYPE_UNSPECIFIED: DType
DTYPE_FLOAT32: DType
DIRECTION_UNSPECIFIED: Direction
DIRECTION_OFFER: Direction
DIRECTION_DELIVERY: Direction

class Slice(_message.Message):
    __slots__ = ("version", "direction", "run", "layout", "exchange", "member", "dtype", "values", "checksum")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    version: int
    direction: Direction
    run: bytes
    layout: bytes
    exchange: int
    member: int
    dtype: DType
    values: bytes
    checksum: int
    def __init__(self, version: _Optional[int] = ..., direction: _Optional[_Union[Direction, str]] = ..., run: _Optional[bytes] = ..., layout: _Optional[bytes] = ..., exchange: _Optional[int] = ..., member: _Optional[int] = ..., dtype: _Optional[_Union[DType, str]] = ..., values: _Optional[bytes] = ..., checksum: _Optional[int] = ...) -> None: ...
