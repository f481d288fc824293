"""Generated from ``proto/wash/v1/exchange.proto`` by ``make proto``."""
