"""The rules that changes of each kind are held to, whoever asks for the change."""
