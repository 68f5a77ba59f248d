"""The rules of segmentation. Pure: values in, values out."""
