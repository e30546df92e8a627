"""What decides: diagnosis in rounds, the recovery loop, approvals and policy. It meets the world only through
Protocols.
"""
