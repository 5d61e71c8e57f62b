"""The torch-shaped facade: `import rushlight as torch`."""
