"""Write a logged agent to a folder for rl_zoo3 and Hugging Face.

Reads   the model.
Writes  the folder.
"""

from mlflow_sb3.cli.export_agent import export_agent

if __name__ == "__main__":
    export_agent()
