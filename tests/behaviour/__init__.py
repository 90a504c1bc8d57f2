"""What users rely on, through the command line and `import paretune` alone."""
