# tests need nothing but what is imported here
