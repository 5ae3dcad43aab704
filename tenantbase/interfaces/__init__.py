"""The Protocols of third-party systems that the policy needs, and the drivers behind them."""
