app_name = "forwards"
urlpatterns: list = []
