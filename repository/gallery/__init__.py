"""Galleries: indexes of models that can be installed by name, in a form of our own or in LocalAI's."""
