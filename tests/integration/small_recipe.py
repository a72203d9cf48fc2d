"""What the small recipes of these tests share: a tiny model, and one family of programs that is made in no time."""

CODE = """
sandbox = "local"
threads = 1
control = false

[model]
vocab_size = 320
max_context = 256

[[families]]
name = "code"
env = "verigym/Code-v0"
tasks = "small-programs"
options = { system_prompt = "" }
num_train = 12
num_held_out = 4
turns = 1
turn_tokens = 16
num_demonstrations = 16
experts = { solve = 0.5, forget_the_condition = 0.5 }
"""
