from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DTYPE_UNSPECIFIED: _ClassVar[DType]
    DTYPE_FLOAT32: _ClassVar[DType]
    DTYPE_BFLOAT16: _ClassVar[DType]
    DTYPE_FLOAT16: _ClassVar[DType]
    DTYPE_INT8: _ClassVar[DType]
    DTYPE_INT4: _ClassVar[DType]
    DTYPE_INT3: _ClassVar[DType]
    DTYPE_INT2: _ClassVar[DType]

class Direction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DIRECTION_UNSPECIFIED: _ClassVar[Direction]
    DIRECTION_OFFER: _ClassVar[Direction]
    DIRECTION_DELIVERY: _ClassVar[Direction]
    DIRECTION_MISSED: _ClassVar[Direction]
    DIRECTION_ANCHOR: _ClassVar[Direction]

class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATUS_UNSPECIFIED: _ClassVar[Status]
    STATUS_WELCOME: _ClassVar[Status]
    STATUS_DELIVERED: _ClassVar[Status]
    STATUS_ALONE: _ClassVar[Status]
    STATUS_LATE: _ClassVar[Status]
    STATUS_UNDELIVERED: _ClassVar[Status]
    STATUS_EARLY: _ClassVar[Status]
    STATUS_REFUSED: _ClassVar[Status]
    STATUS_ASIDE: _ClassVar[Status]
    STATUS_DENIED: _ClassVar[Status]
    STATUS_REPLACED: _ClassVar[Status]
    STATUS_ANEW: _ClassVar[Status]
DTYPE_UNSPECIFIED: DType
DTYPE_FLOAT32: DType
DTYPE_BFLOAT16: DType
DTYPE_FLOAT16: DType
DTYPE_INT8: DType
DTYPE_INT4: DType
DTYPE_INT3: DType
DTYPE_INT2: DType
DIRECTION_UNSPECIFIED: Direction
DIRECTION_OFFER: Direction
DIRECTION_DELIVERY: Direction
DIRECTION_MISSED: Direction
DIRECTION_ANCHOR: Direction
STATUS_UNSPECIFIED: Status
STATUS_WELCOME: Status
STATUS_DELIVERED: Status
STATUS_ALONE: Status
STATUS_LATE: Status
STATUS_UNDELIVERED: Status
STATUS_EARLY: Status
STATUS_REFUSED: Status
STATUS_ASIDE: Status
STATUS_DENIED: Status
STATUS_REPLACED: Status
STATUS_ANEW: Status

class Slice(_message.Message):
    __slots__ = ("version", "direction", "run", "layout", "exchange", "member", "dtype", "values", "checksum", "chain")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    version: int
    direction: Direction
    run: bytes
    layout: bytes
    exchange: int
    member: int
    dtype: DType
    values: bytes
    checksum: int
    chain: int
    def __init__(self, version: _Optional[int] = ..., direction: _Optional[_Union[Direction, str]] = ..., run: _Optional[bytes] = ..., layout: _Optional[bytes] = ..., exchange: _Optional[int] = ..., member: _Optional[int] = ..., dtype: _Optional[_Union[DType, str]] = ..., values: _Optional[bytes] = ..., checksum: _Optional[int] = ..., chain: _Optional[int] = ...) -> None: ...

class Deliveries(_message.Message):
    __slots__ = ("after", "chain", "slices", "whole", "checksum")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    SLICES_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    after: int
    chain: int
    slices: _containers.RepeatedScalarFieldContainer[bytes]
    whole: int
    checksum: int
    def __init__(self, after: _Optional[int] = ..., chain: _Optional[int] = ..., slices: _Optional[_Iterable[bytes]] = ..., whole: _Optional[int] = ..., checksum: _Optional[int] = ...) -> None: ...

class MemberMessage(_message.Message):
    __slots__ = ("hello", "offer", "farewell")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    FAREWELL_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    offer: Offer
    farewell: Farewell
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., offer: _Optional[_Union[Offer, _Mapping]] = ..., farewell: _Optional[_Union[Farewell, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("version", "run", "layout", "member", "token", "round", "applied", "initial", "incarnation")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    INITIAL_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    version: int
    run: bytes
    layout: bytes
    member: int
    token: bytes
    round: int
    applied: int
    initial: str
    incarnation: int
    def __init__(self, version: _Optional[int] = ..., run: _Optional[bytes] = ..., layout: _Optional[bytes] = ..., member: _Optional[int] = ..., token: _Optional[bytes] = ..., round: _Optional[int] = ..., applied: _Optional[int] = ..., initial: _Optional[str] = ..., incarnation: _Optional[int] = ...) -> None: ...

class Offer(_message.Message):
    __slots__ = ("applied", "packet", "more", "exchange")
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    PACKET_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_FIELD_NUMBER: _ClassVar[int]
    applied: int
    packet: bytes
    more: bool
    exchange: int
    def __init__(self, applied: _Optional[int] = ..., packet: _Optional[bytes] = ..., more: bool = ..., exchange: _Optional[int] = ...) -> None: ...

class Farewell(_message.Message):
    __slots__ = ("applied",)
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    applied: int
    def __init__(self, applied: _Optional[int] = ...) -> None: ...

class ServerMessage(_message.Message):
    __slots__ = ("status", "settled", "packet", "more", "reason")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    PACKET_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    status: Status
    settled: int
    packet: bytes
    more: bool
    reason: str
    def __init__(self, status: _Optional[_Union[Status, str]] = ..., settled: _Optional[int] = ..., packet: _Optional[bytes] = ..., more: bool = ..., reason: _Optional[str] = ...) -> None: ...
