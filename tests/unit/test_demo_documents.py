from demo.documents import PIECE, package_documents


def test_the_packages_installed_here_give_two_hundred_documents():
    """The demo has 200 different texts of sane length without any file."""
    documents = package_documents(200)
    assert len(set(documents)) == 200
    assert all(50 < len(document) <= PIECE for document in documents)
    assert documents == package_documents(200)
