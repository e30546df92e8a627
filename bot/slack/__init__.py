"""opsbot in Slack: what people say becomes requests, what runs do becomes messages."""
