"""What travels: one envelope and one serializer for every driver. Readable by drivers that translate."""
