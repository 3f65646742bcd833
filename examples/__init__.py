"""Programs that show how Paretune is used."""
