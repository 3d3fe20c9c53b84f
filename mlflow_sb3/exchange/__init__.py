"""Import agents of SB3, rl_zoo3 and Hugging Face, and export agents for them."""
