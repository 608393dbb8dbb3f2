"""The diffusion process on label maps and images: schedules, forward process, reverse steps, the noise field."""
